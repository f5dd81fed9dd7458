// Every page and dialog, with something in it: what is photographed, measured and held to the rules of access.

import type { Backend } from "./server";
import type { Door } from "../src/scripted/services";
import type { Operation } from "../src/gen/livemerge/v1/operation_pb";
import type { Page } from "playwright-core";
import type { Route } from "../src/logic/route";
import type { Size, World } from "../src/scripted/world";
import { FULL } from "../src/scripted/world";
import { ROLES } from "./server";
import { advance, begin, crash } from "../src/scripted/merge";

export interface Scene {
  readonly name: string;
  readonly route: (world: World) => Route;
  /** What is seen when it is there. */
  readonly shows: string | RegExp;
  readonly size?: Size;
  readonly door?: Door;
  /** What has happened before. */
  readonly before?: (world: World) => void;
  /** What somebody does then. */
  readonly then?: (page: Page, backend: Backend) => Promise<void>;
}

export const HOUSE: Size = { vms: 60, snapshots: 8 };
const EMPTY: Size = { vms: 0, snapshots: 0 };

const vm = (world: World, index: number) => world.vms[index]?.id ?? "";
const machine = (index: number) => (world: World): Route => ({ page: "vm", id: vm(world, index) });
const snapshot = (world: World, index: number, at: number) => world.snapshotsOf(vm(world, index))[at]?.id ?? "";
const click = (name: string | RegExp) => async (page: Page) => page.getByRole("button", { name }).first().click();

let requests = 0;
function remove(world: World, index: number, at: readonly number[]): Operation {
  requests += 1;
  const list = world.snapshotsOf(vm(world, index));
  return begin(world, at.flatMap((each) => list[each] ?? []), { requestId: `00000000-0000-4000-8000-${String(requests).padStart(12, "0")}` });
}

/** Time goes by, in the world's own clock. */
function pass(world: World, seconds: number): void {
  world.shiftMs += seconds * 1000;
  advance(world, seconds);
}

function finish(world: World): void {
  for (let step = 0; step < 40; step += 1) pass(world, 0.5);
}

/** A day's work: some done, one cancelled, one failed, two under way, two that wait. */
export function furnish(world: World): void {
  world.shiftMs = -3_600_000;
  for (const index of [10, 11, 12]) {
    remove(world, index, [0]);
    finish(world);
    world.shiftMs += 600_000;
  }
  const cancelled = remove(world, 13, [1]);
  pass(world, 0.5);
  pass(world, 0.4);
  cancelled.cancelRequested = true;
  finish(world);
  const failed = remove(world, 14, [0, 1]);
  for (let step = 0; step < 4; step += 1) pass(world, 0.5);
  crash(world, failed);
  world.shiftMs = -9_000;
  remove(world, 7, [0, 1]);
  remove(world, 0, [0]);
  for (let step = 0; step < 5; step += 1) pass(world, 0.2);
  remove(world, 0, [3]);
  remove(world, 0, [5, 6]);
  world.shiftMs = 0;
}

const operation = (pick: (world: World) => Operation | undefined) => (world: World): Route => ({ page: "operation", id: pick(world)?.id ?? "" });
const of = (index: number) => (world: World) => world.operations.find((each) => each.vmId === vm(world, index));
const log = { page: "events", vm: "", operation: "", severity: "", type: "", q: "" } as const;

export const SCENES: readonly Scene[] = [
  { name: "sign-in", route: () => ({ page: "hosts" }), shows: "Bearer token", door: ROLES },
  { name: "hosts", route: () => ({ page: "hosts" }), shows: "UNRESPONSIVE", before: furnish },
  { name: "hosts-none", route: () => ({ page: "hosts" }), shows: "No host yet", size: EMPTY, before: (world) => world.hosts.splice(0) },
  { name: "hosts-maintenance", route: () => ({ page: "hosts" }), shows: "What merges there", then: click("Into maintenance") },
  { name: "machines", route: () => ({ page: "vms", q: "", state: "", host: "" }), shows: "5,000 machines", size: FULL, before: furnish },
  { name: "machines-none", route: () => ({ page: "vms", q: "", state: "", host: "" }), shows: "No machine yet", size: EMPTY },
  { name: "machines-no-match", route: () => ({ page: "vms", q: "nothing such", state: "", host: "" }), shows: "Nothing matches" },
  { name: "machine", route: machine(9), shows: "snapshots" },
  { name: "machine-merging", route: machine(0), shows: "place 1", before: furnish },
  { name: "machine-layers", route: machine(1), shows: "what others are built on", then: async (page) => page.locator("summary", { hasText: "Layers" }).click() },
  { name: "machine-many", route: machine(0), shows: "500 snapshots", size: FULL },
  { name: "machine-no-snapshot", route: machine(50), shows: "No snapshot" },
  {
    name: "machine-selected",
    route: machine(4),
    shows: "Delete 2…",
    then: async (page) => {
      for (const each of [0, 3]) await page.locator(".row.tree input").nth(each).check();
    },
  },
  { name: "delete", route: (world) => ({ page: "vm", id: vm(world, 4), dialog: { kind: "delete", snapshots: [snapshot(world, 4, 1)] } }), shows: "takes about" },
  {
    name: "delete-ways",
    route: (world) => ({ page: "vm", id: vm(world, 4), dialog: { kind: "delete", snapshots: [snapshot(world, 4, 6)] } }),
    shows: "The same by hand",
    then: async (page) => {
      await page.getByText("takes about").waitFor();
      for (const summary of await page.locator("dialog summary").all()) await summary.click();
    },
  },
  { name: "delete-several", route: (world) => ({ page: "vm", id: vm(world, 7), dialog: { kind: "delete", snapshots: [0, 1, 3].map((at) => snapshot(world, 7, at)) } }), shows: "takes about" },
  { name: "delete-many", route: (world) => ({ page: "vm", id: vm(world, 0), dialog: { kind: "delete", snapshots: world.snapshotsOf(vm(world, 0)).slice(50, 90).map((each) => each.id) } }), shows: "takes about", size: FULL },
  { name: "delete-protected", route: (world) => ({ page: "vm", id: vm(world, 4), dialog: { kind: "delete", snapshots: [snapshot(world, 4, 2)] } }), shows: "It is protected" },
  { name: "delete-blocked", route: (world) => ({ page: "vm", id: vm(world, 1), dialog: { kind: "delete", snapshots: [snapshot(world, 1, 0)] } }), shows: "SNAPSHOT_SHARED_BASE" },
  { name: "create", route: (world) => ({ page: "vm", id: vm(world, 4), dialog: { kind: "create" } }), shows: "Freeze the guest's file systems" },
  { name: "edit", route: (world) => ({ page: "vm", id: vm(world, 4), dialog: { kind: "edit", snapshot: snapshot(world, 4, 0) } }), shows: "Change a snapshot" },
  { name: "operations", route: () => ({ page: "operations", group: "", q: "", vm: "" }), shows: "merging", before: furnish },
  { name: "operations-queue", route: () => ({ page: "operations", group: "queued", q: "", vm: "" }), shows: "place 2", before: furnish },
  { name: "operations-done", route: () => ({ page: "operations", group: "done", q: "", vm: "" }), shows: "VM_DIED", before: furnish },
  { name: "operations-none", route: () => ({ page: "operations", group: "", q: "", vm: "" }), shows: "Nothing goes on" },
  { name: "operation-running", route: operation(of(7)), shows: "copying", before: furnish },
  { name: "operation-queued", route: operation(of(0)), shows: "VM_BUSY", before: furnish },
  { name: "operation-done", route: operation(of(10)), shows: "Done in", before: furnish },
  { name: "operation-failed", route: operation(of(14)), shows: "VM_DIED", before: furnish },
  { name: "operation-cancelled", route: operation(of(13)), shows: "Given up after", before: furnish },
  { name: "operation-cancel", route: operation(of(7)), shows: "The copy stops", before: furnish, then: click("Cancel…") },
  { name: "log", route: () => log, shows: "events", before: furnish },
  { name: "log-none", route: () => ({ ...log, severity: "error" }), shows: "No event" },
  { name: "log-event", route: () => log, shows: "revision", before: furnish, then: async (page) => page.locator("button.row").nth(4).click() },
  { name: "storage", route: () => ({ page: "storage" }), shows: "Condemned volumes" },
  { name: "storage-restore", route: () => ({ page: "storage" }), shows: "comes back under its name", then: click("Restore…") },
  { name: "findings", route: () => ({ page: "findings", vm: "", host: "" }), shows: "2 findings" },
  { name: "findings-repair", route: () => ({ page: "findings", vm: "", host: "" }), shows: "The server looks again", then: click(/Remove the volume/u) },
  { name: "unknown", route: () => ({ page: "unknown", path: "nowhere" }), shows: "There is no such page" },
  {
    name: "stale",
    route: machine(4),
    shows: "has not been heard for a while",
    then: async (page, backend) => {
      await page.getByText("live", { exact: true }).waitFor();
      await backend.kill();
    },
  },
];

