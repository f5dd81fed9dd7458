// Where one is: everything after `#`. A reload, a bookmark and the back button keep it; a token never stands
// in it.

/** What lies over a machine's page. */
export type VmDialog =
  | { readonly kind: "delete"; readonly snapshots: readonly string[] }
  | { readonly kind: "create" }
  | { readonly kind: "edit"; readonly snapshot: string };

/** A page with all that tells it from others. */
export type Route =
  | { readonly page: "hosts" }
  | { readonly page: "vms"; readonly q: string; readonly state: string; readonly host: string }
  | { readonly page: "vm"; readonly id: string; readonly dialog?: VmDialog }
  | { readonly page: "operations"; readonly group: string; readonly q: string; readonly vm: string; readonly kind?: string; readonly outcome?: string }
  | { readonly page: "operation"; readonly id: string }
  | { readonly page: "events"; readonly vm: string; readonly operation: string; readonly severity: string; readonly type: string; readonly q: string }
  | { readonly page: "storage" }
  | { readonly page: "findings"; readonly vm: string; readonly host: string }
  | { readonly page: "unknown"; readonly path: string };

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The route of a location's hash. What is not known becomes a page that says so. */
export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#?\/?/u, "");
  const [path = "", search = ""] = text.split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decoded);
  const query = new URLSearchParams(search);
  const given = (name: string) => query.get(name) ?? "";
  const some = (name: string) => (given(name) === "" ? {} : { [name]: given(name) });
  const [page, id, act, what] = parts;
  if (page === undefined) return { page: "vms", q: "", state: "", host: "" };
  if (id === undefined) {
    switch (page) {
      case "hosts":
      case "storage":
        return { page };
      case "vms":
        return { page, q: given("q"), state: given("state"), host: given("host") };
      case "operations":
        return { page, group: given("group"), q: given("q"), vm: given("vm"), ...some("kind"), ...some("outcome") };
      case "events":
        return { page, vm: given("vm"), operation: given("operation"), severity: given("severity"), type: given("type"), q: given("q") };
      case "findings":
        return { page, vm: given("vm"), host: given("host") };
    }
  } else if (page === "operations" && act === undefined) {
    return { page: "operation", id };
  } else if (page === "vms") {
    const dialog = dialogOf(act, what, given("snapshots"));
    if (act === undefined) return { page: "vm", id };
    if (dialog !== undefined) return { page: "vm", id, dialog };
  }
  return { page: "unknown", path };
}

function dialogOf(act: string | undefined, what: string | undefined, snapshots: string): VmDialog | undefined {
  if (act === "create" && what === undefined) return { kind: "create" };
  if (act === "edit" && what !== undefined) return { kind: "edit", snapshot: what };
  const chosen = snapshots.split(",").filter(Boolean);
  if (act === "delete" && chosen.length > 0) return { kind: "delete", snapshots: chosen };
  return undefined;
}

function query(values: Record<string, string>): string {
  const given = Object.entries(values).filter(([, value]) => value !== "");
  return given.length === 0 ? "" : `?${new URLSearchParams(given).toString()}`;
}

/** The link to a route. */
export function href(route: Route): string {
  const at = encodeURIComponent;
  switch (route.page) {
    case "hosts":
    case "storage":
      return `#/${route.page}`;
    case "vms":
      return `#/vms${query({ q: route.q, state: route.state, host: route.host })}`;
    case "vm":
      return `#/vms/${at(route.id)}${dialogPath(route.dialog)}`;
    case "operations":
      return `#/operations${query({ group: route.group, q: route.q, vm: route.vm, kind: route.kind ?? "", outcome: route.outcome ?? "" })}`;
    case "operation":
      return `#/operations/${at(route.id)}`;
    case "events":
      return `#/events${query({ vm: route.vm, operation: route.operation, severity: route.severity, type: route.type, q: route.q })}`;
    case "findings":
      return `#/findings${query({ vm: route.vm, host: route.host })}`;
    case "unknown":
      return `#/${route.path}`;
  }
}

function dialogPath(dialog: VmDialog | undefined): string {
  switch (dialog?.kind) {
    case "create":
      return "/create";
    case "edit":
      return `/edit/${encodeURIComponent(dialog.snapshot)}`;
    case "delete":
      return `/delete?${new URLSearchParams({ snapshots: dialog.snapshots.join(",") }).toString()}`;
    default:
      return "";
  }
}

const NAMES: Record<Route["page"], string> = {
  hosts: "Hosts",
  vms: "Machines",
  vm: "Machine",
  operations: "Operations",
  operation: "Operation",
  events: "Audit log",
  storage: "Storage",
  findings: "Consistency",
  unknown: "No such page",
};

export function pageName(route: Route): string {
  return NAMES[route.page];
}

/** Whether only a filter or a dialog tells them apart. */
export function samePage(one: Route, other: Route): boolean {
  const id = (route: Route) => (route.page === "vm" || route.page === "operation" ? route.id : "");
  return one.page === other.page && id(one) === id(other);
}

/** All machines, all operations, all events: where the navigation leads. */
export const PLACES = {
  hosts: { page: "hosts" },
  vms: { page: "vms", q: "", state: "", host: "" },
  operations: { page: "operations", group: "", q: "", vm: "" },
  events: { page: "events", vm: "", operation: "", severity: "", type: "", q: "" },
  storage: { page: "storage" },
  findings: { page: "findings", vm: "", host: "" },
} as const satisfies Record<string, Route>;
