// Orders a delete: what is protected is freed first, because the click and the typed name said so.

import type { Clients } from "../api/clients";
import type { MergeDirection } from "../gen/livemerge/v1/merge_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import { freshId } from "../api/request-id";
import { mutate } from "../api/mutate";

export interface Order {
  readonly vmId: string;
  readonly chosen: readonly Snapshot[];
  readonly requestId: string;
  readonly options: { readonly direction: MergeDirection; readonly bytesPerSecond: bigint };
}

/** The accepted operation. Asked again with the same request id, it is the same operation. */
export async function orderDelete(clients: Clients, order: Order): Promise<Operation | undefined> {
  const { vmId, requestId, options } = order;
  const chosen: Snapshot[] = [];
  for (const snapshot of order.chosen) chosen.push(snapshot.deletionProtected ? await freed(clients, snapshot) : snapshot);
  const [one, ...more] = chosen;
  if (one === undefined) return undefined;
  if (more.length === 0) {
    // Of one snapshot it is certain that it is still the one that was looked at.
    const request = { requestId, snapshotId: one.id, etag: one.etag, options };
    return (await mutate(() => clients.snapshots.deleteSnapshot(request))).operation;
  }
  const request = { requestId, vmId, snapshotIds: chosen.map((snapshot) => snapshot.id), options };
  return (await mutate(() => clients.snapshots.batchDeleteSnapshots(request))).operation;
}

async function freed(clients: Clients, snapshot: Snapshot): Promise<Snapshot> {
  const request = { requestId: freshId(), snapshotId: snapshot.id, etag: snapshot.etag, deletionProtected: false };
  const answer = await mutate(() => clients.snapshots.updateSnapshot(request));
  return answer.snapshot ?? snapshot;
}
