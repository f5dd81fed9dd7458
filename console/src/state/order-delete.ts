// Orders a delete: what is protected is freed first, because the click and the typed name said so. When the
// delete is not taken then, it is protected again.

import type { Clients } from "../api/clients";
import type { MergeDirection } from "../gen/livemerge/v1/merge_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import { freshId } from "../api/request-id";
import { mutate, type Sleep } from "../api/mutate";

export interface Order {
  readonly vmId: string;
  readonly chosen: readonly Snapshot[];
  readonly requestId: string;
  readonly options: { readonly direction: MergeDirection; readonly bytesPerSecond: bigint };
}

/** The delete was not taken, because of `cause`. */
export class NotOrdered extends Error {
  constructor(
    cause: unknown,
    /** What was protected, and could not be protected again. */
    readonly bare: readonly Snapshot[],
  ) {
    super("the delete was not taken", { cause });
  }
}

/** The accepted operation. Asked again with the same request id, it is the same operation. Throws `NotOrdered`. */
export async function orderDelete(clients: Clients, order: Order, pause?: Sleep): Promise<Operation | undefined> {
  const freed: Snapshot[] = [];
  try {
    const chosen: Snapshot[] = [];
    for (const snapshot of order.chosen) {
      // When the answer is lost nobody knows whether it was freed, so it counts before it is asked for.
      if (snapshot.deletionProtected) freed.push(snapshot);
      chosen.push(snapshot.deletionProtected ? await free(clients, snapshot, pause) : snapshot);
    }
    return await ask(clients, order, chosen, pause);
  } catch (thrown) {
    throw new NotOrdered(thrown, await protectAgain(clients, freed, pause));
  }
}

async function ask(clients: Clients, order: Order, chosen: readonly Snapshot[], pause?: Sleep): Promise<Operation | undefined> {
  const { vmId, requestId, options } = order;
  const [one, ...more] = chosen;
  if (one === undefined) return undefined;
  if (more.length === 0) {
    // Of one snapshot it is certain that it is still the one that was looked at.
    const request = { requestId, snapshotId: one.id, etag: one.etag, options };
    return (await mutate(() => clients.snapshots.deleteSnapshot(request), pause)).operation;
  }
  const request = { requestId, vmId, snapshotIds: chosen.map((snapshot) => snapshot.id), options };
  return (await mutate(() => clients.snapshots.batchDeleteSnapshots(request), pause)).operation;
}

async function free(clients: Clients, snapshot: Snapshot, pause?: Sleep): Promise<Snapshot> {
  const request = { requestId: freshId(), snapshotId: snapshot.id, etag: snapshot.etag, deletionProtected: false };
  const answer = await mutate(() => clients.snapshots.updateSnapshot(request), pause);
  return answer.snapshot ?? snapshot;
}

/** Answers those that are bare now. Whoever has changed one meanwhile does not mind: no etag is asked for. */
async function protectAgain(clients: Clients, freed: readonly Snapshot[], pause?: Sleep): Promise<Snapshot[]> {
  const asked = freed.map(({ id }) => {
    const request = { requestId: freshId(), snapshotId: id, deletionProtected: true };
    return mutate(() => clients.snapshots.updateSnapshot(request), pause);
  });
  const answers = await Promise.allSettled(asked);
  return freed.filter((_, index) => answers[index]?.status === "rejected");
}
