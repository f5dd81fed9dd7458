// @vitest-environment happy-dom
// The pages over the scripted backend: what a person sees and does.

import { App } from "./app";
import { FULL, ODD_NAMES, World, type Size } from "./scripted/world";
import { advance } from "./scripted/merge";
import { afterEach, expect, test, vi } from "vitest";
import { clientsOf } from "./api/clients";
import { forgetAll } from "./state/resource";
import { href, type Route } from "./logic/route";
import { render } from "preact";
import { session, signOut, start, tokenNow } from "./session/session";
import { transportOf } from "./scripted/transport";
import { visible } from "./logic/text";
import type { Door } from "./scripted/services";

const SMALL: Size = { vms: 12, snapshots: 8 };
const ROLES: Door = { tokens: new Map([["look", "viewer"], ["change", "operator"]] as const) };

vi.setConfig({ testTimeout: 20_000 });

let root: HTMLElement | undefined;
/** Whether the way to the server is cut. */
let cut = false;

async function open(route: Route, { size = SMALL, door }: { size?: Size; door?: Door } = {}) {
  const world = new World(size);
  const transport = transportOf(world, door, tokenNow);
  const clients = clientsOf({ ...transport, unary: (...call) => (cut ? Promise.reject(new TypeError("Failed to fetch")) : transport.unary(...call)) });
  root = document.createElement("div");
  document.body.append(root);
  visit(route);
  session.value = { kind: "starting" };
  render(<App clients={clients} />, root);
  await start(clients);
  return world;
}

function visit(route: Route) {
  window.location.hash = href(route);
  window.dispatchEvent(new Event("hashchange"));
}

const page = () => root as HTMLElement;
const text = () => page().textContent ?? "";
const seen = (words: string | RegExp) => vi.waitFor(() => expect(text()).toMatch(words), { timeout: 5_000 });
const button = (words: string | RegExp) => {
  const all = [...page().querySelectorAll("button")];
  const found = all.find((each) => (typeof words === "string" ? each.textContent?.trim() === words : words.test(each.textContent ?? "")));
  if (!found) throw new Error(`no button ${String(words)} among ${all.map((each) => each.textContent).join(", ")}`);
  return found;
};
const type = (field: HTMLInputElement, value: string) => {
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
const vm = (world: World, index: number) => world.vms[index]?.id ?? "";

afterEach(() => {
  if (root) render(null, root);
  root?.remove();
  signOut();
  forgetAll();
});

test("of 5,000 machines those in sight are there, and a search finds the others", async () => {
  await open({ page: "vms", q: "", state: "", host: "" }, { size: FULL });
  await seen("5,000 machines");
  expect(page().querySelectorAll(".virtual li").length).toBeLessThan(60);
  const field = page().querySelector<HTMLInputElement>("input[type=search]");
  if (field) type(field, "vm-4999");
  await seen("1 machine of 5,000");
  expect(text()).toContain("vm-4999");
  expect(window.location.hash).toBe("#/vms?q=vm-4999");
}, 30_000);

test("500 snapshots are listed, of which those in sight are there", async () => {
  const world = await open({ page: "vm", id: "" }, { size: { vms: 2, snapshots: 500 } });
  visit({ page: "vm", id: vm(world, 0) });
  await seen("500 snapshots");
  await vi.waitFor(() => expect(page().querySelectorAll(".chain .block").length).toBe(501));
  expect(page().querySelectorAll(".row.tree").length).toBeLessThan(60);
}, 30_000);

test("names are text, whatever stands in them", async () => {
  const world = await open({ page: "vms", q: "", state: "", host: "" });
  await seen("12 machines");
  for (const name of ODD_NAMES) {
    visit({ page: "vms", q: name, state: "", host: "" });
    await seen("1 machine of 12");
    expect(text()).toContain(visible(name));
  }
  visit({ page: "vm", id: vm(world, 0) });
  await seen("8 snapshots");
  for (const name of ODD_NAMES) expect(text()).toContain(visible(name));
  expect(page().querySelector("img, script, [onerror]")).toBeNull();
  expect(page().innerHTML).not.toContain("\u202e");
});

test.each([
  [{ page: "hosts" }, /host-01.*UP/],
  [{ page: "operations", group: "", q: "", vm: "" }, "Nothing goes on"],
  [{ page: "operations", group: "done", q: "", vm: "" }, "Nothing is done yet"],
  [{ page: "events", vm: "", operation: "", severity: "", type: "", q: "" }, "300 events"],
  [{ page: "storage" }, /Reserved6.00 GiB promised.*vm-0007-old/],
  [{ page: "findings", vm: "", host: "" }, /Remove the volume….*nothing refers to the volume/],
  [{ page: "unknown", path: "x" }, "There is no such page"],
] as const)("page %o shows what it is for", async (route, words) => {
  await open(route);
  await seen(words);
  expect(page().querySelector("[role=alert]")).toBeNull();
});

test("a delete: the plan, the click, the progress, the end", async () => {
  const world = await open({ page: "vm", id: "" });
  const id = vm(world, 0);
  visit({ page: "vm", id });
  await seen("8 snapshots");
  page().querySelector<HTMLButtonElement>(".row.tree .acts button")?.click();
  await seen(/Copies .* gives back .* takes about/);
  expect(window.location.hash).toContain("/delete?snapshots=");
  await vi.waitFor(() => expect(page().querySelectorAll("dialog .chain").length).toBe(2));
  const [before, after] = [...page().querySelectorAll("dialog .chain")].map((chain) => chain.querySelectorAll(".block").length);
  expect([before, after]).toEqual([9, 8]);
  button("Delete").click();
  await seen(/Bandwidth: no limit/);
  expect(window.location.hash).toContain("#/operations/");
  expect(text()).toContain("token:scripted");
  for (let step = 0; step < 30; step += 1) advance(world, 1);
  await seen(/Done in .* given back/);
  await seen(/snapshot deleted/);
}, 20_000);

test("the plan follows the limit, and until it does nothing can be deleted", async () => {
  const world = await open({ page: "vm", id: "" });
  const id = vm(world, 0);
  visit({ page: "vm", id, dialog: { kind: "delete", snapshots: [world.snapshotsOf(id)[0]?.id ?? ""] } });
  await seen(/takes about \d s\./);
  expect(button("Delete").disabled).toBe(false);
  const slider = page().querySelector<HTMLInputElement>("dialog input[type=range]");
  if (slider) type(slider, "0");
  await vi.waitFor(() => expect(button("Delete").disabled).toBe(true));
  expect(text()).toContain("takes about");
  await seen(/takes about \d+ (s|min).*at most 1.00 MiB/);
  await vi.waitFor(() => expect(text()).not.toMatch(/takes about \d s\./));
  await vi.waitFor(() => expect(button("Delete").disabled).toBe(false));
});

test("several that are protected are marked, and ask for each name", async () => {
  const world = await open({ page: "vm", id: "" });
  const id = vm(world, 0);
  const chosen = world.snapshotsOf(id).slice(0, 3);
  for (const each of chosen) each.deletionProtected = each !== chosen[0];
  visit({ page: "vm", id, dialog: { kind: "delete", snapshots: chosen.map((each) => each.id) } });
  await seen("2 of them are protected");
  await seen("Copies");
  expect(text().match(/\(protected\)/g)).toHaveLength(2);
  const fields = [...page().querySelectorAll<HTMLInputElement>("dialog .note input")];
  expect(fields).toHaveLength(2);
  if (fields[0]) type(fields[0], chosen[1]?.name ?? "");
  await new Promise((done) => setTimeout(done, 50));
  expect(button("Delete 3").disabled).toBe(true);
  if (fields[1]) type(fields[1], chosen[2]?.name ?? "");
  await vi.waitFor(() => expect(button("Delete 3").disabled).toBe(false));
});

test("what is protected asks for its name", async () => {
  const world = await open({ page: "vm", id: "" });
  const id = vm(world, 0);
  const locked = world.snapshotsOf(id).find((each) => each.deletionProtected);
  visit({ page: "vm", id, dialog: { kind: "delete", snapshots: [locked?.id ?? ""] } });
  await seen("It is protected");
  await seen("Copies");
  expect(button("Delete").disabled).toBe(true);
  const field = page().querySelector<HTMLInputElement>("dialog .note input");
  if (field) type(field, locked?.name ?? "");
  await vi.waitFor(() => expect(button("Delete").disabled).toBe(false));
});

test("what blocks a delete is named with what resolves it", async () => {
  const world = await open({ page: "vm", id: "" });
  const id = vm(world, 1);
  visit({ page: "vm", id, dialog: { kind: "delete", snapshots: [world.snapshotsOf(id)[0]?.id ?? ""] } });
  await seen(/SNAPSHOT_SHARED_BASE.*Delete what shares it first/);
  expect(button("Delete").disabled).toBe(true);
});

test("a snapshot is taken with a name that is free", async () => {
  const world = await open({ page: "vm", id: "" });
  visit({ page: "vm", id: vm(world, 0), dialog: { kind: "create" } });
  await seen("Freeze the guest's file systems");
  const field = page().querySelector<HTMLInputElement>("dialog input[type=text]");
  if (field) type(field, "daily-001");
  await vi.waitFor(() => expect(button("Take it").disabled).toBe(false));
  page().querySelector("dialog form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
  await seen("SNAPSHOT_ALREADY_EXISTS");
  if (field) type(field, "fresh 🚀");
  await seen("--name=fresh 🚀");
  page().querySelector("dialog form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
  await seen(/Take “fresh 🚀”.*The snapshot is taken/);
});

test("a viewer sees, and cannot delete", async () => {
  const world = await open({ page: "vms", q: "", state: "", host: "" }, { door: ROLES });
  await seen("Bearer token");
  const field = page().querySelector<HTMLInputElement>("input[type=password]");
  const submit = () => page().querySelector("form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
  if (field) type(field, "wrong");
  await vi.waitFor(() => expect(button("Sign in").disabled).toBe(false));
  submit();
  await seen("CREDENTIALS_INVALID");
  const again = page().querySelector<HTMLInputElement>("input[type=password]");
  if (again) type(again, "look");
  await vi.waitFor(() => expect(button("Sign in").disabled).toBe(false));
  submit();
  await seen("12 machines");
  visit({ page: "vm", id: vm(world, 0) });
  await seen("8 snapshots");
  for (const each of page().querySelectorAll<HTMLButtonElement>("button.danger, button.primary")) expect(each.disabled).toBe(true);
  expect(window.location.href).not.toContain("look");
  expect(JSON.stringify({ ...window.localStorage })).not.toContain("look");
});

test("a server that cannot be reached is said once, whatever is read", async () => {
  const world = await open({ page: "hosts" });
  await seen(/host-01.*UP/);
  cut = true;
  visit({ page: "vm", id: vm(world, 0) });
  await seen("The server has not been heard for a while");
  await new Promise((done) => setTimeout(done, 300));
  expect(page().querySelectorAll("[role=alert]")).toHaveLength(0);
  expect(page().querySelectorAll("p.stale")).toHaveLength(1);
  cut = false;
  await seen("8 snapshots");
  await vi.waitFor(() => expect(page().querySelector("p.stale")).toBeNull());
});

test("what happens is shown without being asked for", async () => {
  const world = await open({ page: "hosts" });
  await seen(/live/);
  const [host] = world.hosts;
  if (host) host.version = "9.9.9";
  world.tell({ message: "up again", hostId: "host-01" });
  await seen("9.9.9");
});
