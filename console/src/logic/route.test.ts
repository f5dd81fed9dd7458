import { PLACES, href, pageName, parseRoute, samePage, type Route } from "./route";
import { expect, test } from "vitest";

const ROUTES: Route[] = [
  ...Object.values(PLACES),
  { page: "vms", q: `<b>"a" & b`, state: "shut off", host: "h-1" },
  { page: "vm", id: "00000001-0000-4000-8000-000000000001" },
  { page: "vm", id: "x", dialog: { kind: "create" } },
  { page: "vm", id: "x", dialog: { kind: "edit", snapshot: "a/b?c#d" } },
  { page: "vm", id: "نسخة", dialog: { kind: "delete", snapshots: ["a", "b"] } },
  { page: "operations", group: "done", q: "🚀", vm: "v" },
  { page: "operations", group: "done", q: "", vm: "", kind: "delete", outcome: "failed" },
  { page: "operation", id: "o" },
  { page: "events", vm: "v", operation: "o", severity: "error", type: "snapshot_deleted", q: "x=y" },
  { page: "findings", vm: "", host: "h" },
];

test.each(ROUTES.map((route) => [href(route), route] as const))("%s leads there and back", (link, route) => {
  expect(parseRoute(link)).toEqual(route);
});

test("the empty address shows the machines, an unknown one says so", () => {
  for (const hash of ["", "#", "#/"]) expect(parseRoute(hash).page).toBe("vms");
  for (const hash of ["#/nowhere", "#/vms/x/delete", "#/vms/x/y/z", "#/hosts/h", "#/operations/o/p"]) expect(parseRoute(hash).page).toBe("unknown");
});

test("a filter or a dialog is no other page", () => {
  expect(samePage({ page: "vm", id: "x" }, { page: "vm", id: "x", dialog: { kind: "create" } })).toBe(true);
  expect(samePage({ page: "vm", id: "x" }, { page: "vm", id: "y" })).toBe(false);
  expect(samePage(PLACES.hosts, PLACES.storage)).toBe(false);
  for (const route of ROUTES) expect(pageName(route)).not.toBe("");
});

test("broken escapes break nothing", () => {
  expect(parseRoute("#/vms/%E0%A4%A")).toEqual({ page: "vm", id: "%E0%A4%A" });
});
