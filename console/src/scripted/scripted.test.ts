import { FULL, ODD_NAMES, World } from "./world";
import { MergeDirection, MergePhase } from "../gen/livemerge/v1/merge_pb";
import { OperationState } from "../gen/livemerge/v1/operation_pb";
import { advance } from "./merge";
import { clientsOf } from "../api/clients";
import { expect, test } from "vitest";
import { hasEnded, totals } from "../logic/progress";
import { orderDelete } from "../state/order-delete";
import { problemOf } from "../api/problem";
import { readSnapshots } from "../state/lists";
import { transportOf } from "./transport";

const OPTIONS = { direction: MergeDirection.UNSPECIFIED, bytesPerSecond: 0n };

function scene(size = { vms: 5, snapshots: 6 }) {
  const world = new World(size);
  return { world, clients: clientsOf(transportOf(world)), vmId: world.vms[0]?.id ?? "" };
}

test("5,000 machines and 500 snapshots, with names of all kinds", async () => {
  const { world, clients, vmId } = scene(FULL);
  expect(world.vms).toHaveLength(5_000);
  const { items } = await readSnapshots(clients, vmId);
  expect(items).toHaveLength(500);
  for (const name of ODD_NAMES) expect(items.map((each) => each.name)).toContain(name);
});

test("a delete runs to its end, and the chain is shorter", async () => {
  const { world, clients, vmId } = scene();
  const chosen = world.snapshotsOf(vmId).slice(0, 2);
  const operation = await orderDelete(clients, { vmId, chosen, requestId: "r", options: OPTIONS });
  const again = await orderDelete(clients, { vmId, chosen, requestId: "r", options: OPTIONS });
  expect(again?.id).toBe(operation?.id);
  for (let step = 0; step < 60; step += 1) advance(world, 1);
  const { operation: ended } = await clients.operations.getOperation({ operationId: operation?.id });
  expect(ended?.state).toBe(OperationState.SUCCEEDED);
  expect(ended && totals(ended).freed).toBeGreaterThan(0);
  expect(world.snapshotsOf(vmId)).toHaveLength(4);
  expect(world.chain(vmId, "vda").layers).toHaveLength(5);
});

test("a protected one is freed first when it was confirmed; else it is refused", async () => {
  const { world, clients, vmId } = scene();
  const locked = world.snapshotsOf(vmId)[2];
  if (!locked) throw new Error("the scene has six");
  const refused = await clients.snapshots.deleteSnapshot({ requestId: "a", snapshotId: locked.id }).catch(problemOf);
  expect(refused).toMatchObject({ reason: "SNAPSHOT_PROTECTED" });
  const operation = await orderDelete(clients, { vmId, chosen: [structuredClone(locked)], requestId: "b", options: OPTIONS });
  expect(operation?.snapshotIds).toEqual([locked.id]);
});

test("somebody else's change meanwhile is refused, not overwritten", async () => {
  const { world, clients, vmId } = scene();
  const [seen] = structuredClone(world.snapshotsOf(vmId));
  await clients.snapshots.updateSnapshot({ snapshotId: seen?.id, name: "renamed" });
  const order = orderDelete(clients, { vmId, chosen: seen ? [seen] : [], requestId: "r", options: OPTIONS });
  await expect(order).rejects.toThrow();
});

test("a cancel ends what is not past its return", async () => {
  const { world, clients, vmId } = scene();
  const operation = await orderDelete(clients, { vmId, chosen: world.snapshotsOf(vmId).slice(0, 1), requestId: "r", options: OPTIONS });
  advance(world, 0.1);
  await clients.operations.cancelOperation({ operationId: operation?.id });
  advance(world, 0.1);
  const { operation: ended } = await clients.operations.getOperation({ operationId: operation?.id });
  expect(ended && hasEnded(ended)).toBe(true);
  expect(ended?.state).toBe(OperationState.CANCELLED);
  expect(ended?.disks.map((disk) => [disk.phase, disk.doneBytes, disk.totalBytes])).toEqual([[MergePhase.CANCELLED, 0n, 0n]]);
});
