import { World } from "../scripted/world";
import { afterEach, expect, test, vi } from "vitest";
import { begin } from "../scripted/merge";
import { clientsOf, type Clients } from "../api/clients";
import { followOpen } from "./open";
import { transportOf } from "../scripted/transport";

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function looks(world: World, seen: boolean, ms: number, woken: () => Promise<void> = () => new Promise(() => undefined), clients: Clients = clientsOf(transportOf(world))) {
  vi.useFakeTimers();
  vi.stubGlobal("document", { visibilityState: seen ? "visible" : "hidden" });
  const over = new AbortController();
  const found: number[] = [];
  const done = followOpen(clients, woken, (operations) => found.push(operations.length), over.signal);
  await vi.advanceTimersByTimeAsync(ms);
  over.abort();
  await vi.advanceTimersByTimeAsync(20_000);
  await done;
  return found;
}

test("while something goes on and somebody looks, it is looked at each second", async () => {
  const world = new World({ vms: 2, snapshots: 3 });
  begin(world, world.snapshotsOf(world.vms[0]?.id ?? "").slice(0, 1), { requestId: "r" });
  const found = await looks(world, true, 10_000);
  expect(found.length).toBeGreaterThanOrEqual(8);
  expect(new Set(found)).toEqual(new Set([1]));
});

test("a look that fails is made again as soon as the one before", async () => {
  const world = new World({ vms: 2, snapshots: 3 });
  begin(world, world.snapshotsOf(world.vms[0]?.id ?? "").slice(0, 1), { requestId: "r" });
  let calls = 0;
  const { operations, ...others } = clientsOf(transportOf(world));
  const listOperations: typeof operations.listOperations = (request) => {
    calls += 1;
    return calls % 2 === 0 ? Promise.reject(new Error("cut")) : operations.listOperations(request);
  };
  await looks(world, true, 10_000, undefined, { ...others, operations: { ...operations, listOperations } });
  expect(calls).toBeGreaterThanOrEqual(8);
});

test("while nothing goes on, or nobody looks, it is seldom", async () => {
  expect((await looks(new World({ vms: 2, snapshots: 3 }), true, 10_000)).length).toBeLessThanOrEqual(2);
});

test("whoever is waked looks at once, and still not without a pause", async () => {
  const found = await looks(new World({ vms: 2, snapshots: 3 }), false, 1_500, () => Promise.resolve());
  expect(found.length).toBeGreaterThan(5);
  expect(found.length).toBeLessThan(15);
});
