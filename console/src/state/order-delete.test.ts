import { Code } from "@connectrpc/connect";
import { MergeDirection } from "../gen/livemerge/v1/merge_pb";
import { NotOrdered, orderDelete } from "./order-delete";
import { World } from "../scripted/world";
import { clientsOf, type Clients } from "../api/clients";
import { expect, test } from "vitest";
import { fail } from "../scripted/fail";
import { problemOf } from "../api/problem";
import { transportOf } from "../scripted/transport";

const OPTIONS = { direction: MergeDirection.UNSPECIFIED, bytesPerSecond: 0n };
const atOnce = () => Promise.resolve();

/** A machine with two protected snapshots; `refuses` says whether a call of that method fails. */
function scene(refuses: (method: "delete" | "update", protect: boolean | undefined) => boolean) {
  const world = new World({ vms: 1, snapshots: 6 });
  const vmId = world.vms[0]?.id ?? "";
  const list = world.snapshotsOf(vmId);
  for (const snapshot of list) snapshot.deletionProtected = list.indexOf(snapshot) === 1 || list.indexOf(snapshot) === 2;
  const { snapshots, ...others } = clientsOf(transportOf(world));
  const no = () => Promise.reject(fail(Code.FailedPrecondition, "VM_MIGRATING", "on its way"));
  const clients: Clients = {
    ...others,
    snapshots: {
      ...snapshots,
      deleteSnapshot: (request) => (refuses("delete", undefined) ? no() : snapshots.deleteSnapshot(request)),
      batchDeleteSnapshots: (request) => (refuses("delete", undefined) ? no() : snapshots.batchDeleteSnapshots(request)),
      updateSnapshot: (request) => (refuses("update", request.deletionProtected) ? no() : snapshots.updateSnapshot(request)),
    },
  };
  const chosen = structuredClone(list.slice(0, 3));
  const order = () => orderDelete(clients, { vmId, chosen, requestId: "r", options: OPTIONS }, atOnce);
  return { world, vmId, order, locked: () => world.snapshotsOf(vmId).filter((each) => each.deletionProtected).length };
}

const thrownBy = (ordered: Promise<unknown>) =>
  ordered.then(
    () => undefined,
    (thrown: unknown) => (thrown instanceof NotOrdered ? thrown : undefined),
  );

test("what was protected is freed, and then deleted", async () => {
  const { order, locked } = scene(() => false);
  expect((await order())?.snapshotIds).toHaveLength(3);
  expect(locked()).toBe(0);
});

test("a delete that is refused leaves what was protected protected", async () => {
  const { order, locked } = scene((method) => method === "delete");
  const thrown = await thrownBy(order());
  expect(problemOf(thrown?.cause).reason).toBe("VM_MIGRATING");
  expect(thrown?.bare).toEqual([]);
  expect(locked()).toBe(2);
});

test("so does one of which only a part could be freed", async () => {
  let frees = 0;
  const { order, locked } = scene((_, protect) => protect === false && ++frees === 2);
  expect((await thrownBy(order()))?.bare).toEqual([]);
  expect(locked()).toBe(2);
});

test("what could not be protected again is named", async () => {
  const { order } = scene((method, protect) => method === "delete" || protect === true);
  expect((await thrownBy(order()))?.bare.map((each) => each.name)).toHaveLength(2);
});
