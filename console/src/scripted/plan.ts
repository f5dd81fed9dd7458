// What a delete would do to the chains of the world.

import type { PlanDeleteSnapshotResponse, Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { ChainLayer } from "../gen/livemerge/v1/volume_pb";
import type { World } from "./world";
import { MergeDirection, MergeKind } from "../gen/livemerge/v1/merge_pb";
import { MergePlanSchema, PlanDeleteSnapshotResponseSchema, type MergePlan } from "../gen/livemerge/v1/snapshot_service_pb";
import { create } from "@bufbuild/protobuf";

/** Bytes a second, when nothing limits them. */
export const RATE = 40 * 1024 * 1024;

/** Which way the data go, and how fast at most. */
export interface Way {
  readonly direction?: MergeDirection;
  readonly bytesPerSecond?: bigint;
}

export function planOf(world: World, chosen: readonly Snapshot[], { direction = MergeDirection.UNSPECIFIED, bytesPerSecond = 0n }: Way = {}): PlanDeleteSnapshotResponse {
  const rate = bytesPerSecond > 0n && bytesPerSecond < RATE ? bytesPerSecond : BigInt(RATE);
  const [first] = chosen;
  const ids = new Set(chosen.map((snapshot) => snapshot.id));
  const merges = first ? world.disksOf(first.vmId).flatMap((disk) => runs(world, first.vmId, disk, ids, direction, rate)) : [];
  const copy = merges.reduce((sum, merge) => sum + merge.copyBytes, 0n);
  const shared = first !== undefined && first.vmId === world.vms[1]?.id && chosen.includes(world.snapshotsOf(first.vmId)[0] ?? first);
  return create(PlanDeleteSnapshotResponseSchema, {
    merges,
    copyBytes: copy,
    freedBytes: merges.reduce((sum, merge) => sum + merge.freedBytes, 0n),
    estimatedTime: time(copy, rate),
    blockers: [
      ...chosen
        .filter((snapshot) => snapshot.deletionProtected)
        .map((snapshot) => ({ snapshotId: snapshot.id, reason: "SNAPSHOT_PROTECTED", message: "the snapshot is protected against deletion" })),
      ...(shared ? [{ disk: "vda", reason: "SNAPSHOT_SHARED_BASE", message: "another chain is built on the volume" }] : []),
    ],
  });
}

function time(bytes: bigint, rate: bigint) {
  return { seconds: bytes / rate + 1n, nanos: 0 };
}

function sum(layers: readonly ChainLayer[]): bigint {
  return layers.reduce((sum, layer) => sum + layer.allocatedBytes, 0n);
}

/** Neighbours go in one merge, others in rounds of their own. */
function runs(world: World, vmId: string, disk: string, ids: ReadonlySet<string>, direction: MergeDirection, rate: bigint): MergePlan[] {
  const chain = world.chain(vmId, disk).layers;
  const gone = world.snapshotsOf(vmId).map((snapshot) => ids.has(snapshot.id));
  const merges: MergePlan[] = [];
  for (let from = 0; from < gone.length; from += 1) {
    if (!gone[from]) continue;
    let to = from;
    while (gone[to + 1]) to += 1;
    const active = to + 2 === chain.length;
    const run = chain.slice(from, to + 2);
    const up = active && (direction === MergeDirection.UNSPECIFIED ? sum(run.slice(0, -1)) < sum(run.slice(1)) : direction === MergeDirection.PULL);
    const [kept, removed] = up ? [run.at(-1), run.slice(0, -1)] : [run[0], run.slice(1)];
    const bytes = sum(removed);
    merges.push(
      create(MergePlanSchema, {
        disk,
        round: merges.length,
        kind: up ? MergeKind.PULL : active ? MergeKind.ACTIVE_COMMIT : MergeKind.INTERMEDIATE_COMMIT,
        kept: kept?.volume,
        removed: removed.flatMap((layer) => layer.volume ?? []),
        copyBytes: bytes,
        otherWayBytes: active ? sum(up ? run.slice(1) : run.slice(0, -1)) : 0n,
        spaceNeededBytes: bytes / 2n,
        spaceFreeBytes: 90n << 30n,
        freedBytes: bytes,
        estimatedTime: time(bytes, rate),
      }),
    );
    from = to;
  }
  return merges;
}
