// A delete that goes on by itself: planned from the chain, then copied a step at a time.

import type { MergePlan, PlanDeleteSnapshotResponse, Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { World } from "./world";
import { EventSeverity, EventType } from "../gen/livemerge/v1/event_service_pb";
import { MergeKind, MergePhase } from "../gen/livemerge/v1/merge_pb";
import { MergePlanSchema, PlanDeleteSnapshotResponseSchema } from "../gen/livemerge/v1/snapshot_service_pb";
import { OperationKind, OperationPhase, OperationSchema, OperationState } from "../gen/livemerge/v1/operation_pb";
import { create } from "@bufbuild/protobuf";
import { idOf } from "./world";

/** Bytes a second, when nothing limits them. */
const RATE = 40 * 1024 * 1024;

export function planOf(world: World, chosen: readonly Snapshot[]): PlanDeleteSnapshotResponse {
  const [first] = chosen;
  const merges = first ? runs(world, first.vmId, new Set(chosen.map((snapshot) => snapshot.id))) : [];
  const copy = merges.reduce((sum, merge) => sum + merge.copyBytes, 0n);
  const shared = first !== undefined && first.vmId === world.vms[1]?.id && chosen.includes(world.snapshotsOf(first.vmId)[0] ?? first);
  return create(PlanDeleteSnapshotResponseSchema, {
    merges,
    copyBytes: copy,
    freedBytes: merges.reduce((sum, merge) => sum + merge.freedBytes, 0n),
    estimatedTime: { seconds: copy / BigInt(RATE), nanos: 0 },
    blockers: [
      ...chosen
        .filter((snapshot) => snapshot.deletionProtected)
        .map((snapshot) => ({ snapshotId: snapshot.id, reason: "SNAPSHOT_PROTECTED", message: "the snapshot is protected against deletion" })),
      ...(shared ? [{ disk: "vda", reason: "SNAPSHOT_SHARED_BASE", message: "another chain is built on the volume" }] : []),
    ],
  });
}

/** Neighbours go in one merge, others in rounds of their own. */
function runs(world: World, vmId: string, ids: ReadonlySet<string>): MergePlan[] {
  const chain = world.chain(vmId, "vda").layers;
  const gone = world.snapshotsOf(vmId).map((snapshot) => ids.has(snapshot.id));
  const merges: MergePlan[] = [];
  for (let from = 0; from < gone.length; from += 1) {
    if (!gone[from]) continue;
    let to = from;
    while (gone[to + 1]) to += 1;
    const removed = chain.slice(from + 1, to + 2);
    const bytes = removed.reduce((sum, layer) => sum + layer.allocatedBytes, 0n);
    const kind = to + 2 === chain.length ? MergeKind.ACTIVE_COMMIT : MergeKind.INTERMEDIATE_COMMIT;
    merges.push(
      create(MergePlanSchema, {
        disk: "vda",
        round: merges.length,
        kind,
        kept: chain[from]?.volume,
        removed: removed.flatMap((layer) => layer.volume ?? []),
        copyBytes: bytes,
        spaceNeededBytes: bytes / 2n,
        spaceFreeBytes: BigInt(90 * 1024) * BigInt(1024 * 1024),
        freedBytes: bytes,
      }),
    );
    from = to;
  }
  return merges;
}

export function begin(world: World, chosen: readonly Snapshot[], requestId: string, limit: bigint): Operation {
  const plan = planOf(world, chosen);
  const [first] = chosen;
  const operation = create(OperationSchema, {
    id: idOf(2, world.operations.length + 1),
    kind: OperationKind.DELETE_SNAPSHOT,
    state: OperationState.RUNNING,
    phase: OperationPhase.MERGING,
    vmId: first?.vmId ?? "",
    snapshotId: first?.id ?? "",
    snapshotName: first?.name ?? "",
    snapshotIds: chosen.map((snapshot) => snapshot.id),
    bytesPerSecond: limit,
    requestId,
    requestedBy: "token:scripted",
    createdAt: world.at(0),
    startedAt: world.at(0),
    estimatedTime: plan.estimatedTime,
    revision: 1n,
    disks: plan.merges.map((merge) => ({
      disk: merge.disk,
      round: merge.round,
      kind: merge.kind,
      phase: MergePhase.PENDING,
      kept: merge.kept,
      removed: merge.removed,
      totalBytes: merge.copyBytes,
      plannedBytes: merge.copyBytes,
      plannedFreedBytes: merge.freedBytes,
    })),
  });
  world.operations.unshift(operation);
  tell(world, operation, EventType.SNAPSHOT_DELETE_REQUESTED, "somebody asked for the deletion", { request_id: requestId });
  return operation;
}

/** A step of `seconds` of everything that goes on. */
export function advance(world: World, seconds: number): void {
  for (const operation of world.operations) {
    if (operation.state === OperationState.RUNNING && operation.kind === OperationKind.DELETE_SNAPSHOT) step(world, operation, seconds);
  }
}

function step(world: World, operation: Operation, seconds: number): void {
  operation.revision += 1n;
  const merge = operation.disks.find((disk) => disk.phase !== MergePhase.REMOVED);
  if (operation.cancelRequested) return end(world, operation, OperationState.CANCELLED);
  if (merge === undefined) return end(world, operation, OperationState.SUCCEEDED);
  switch (merge.phase) {
    case MergePhase.PENDING:
      merge.phase = MergePhase.COPYING;
      break;
    case MergePhase.COPYING: {
      const rate = operation.bytesPerSecond > 0n ? Number(operation.bytesPerSecond) : RATE * (0.8 + 0.4 * Math.abs(Math.sin(world.now() / 3_000)));
      merge.bytesPerSecond = BigInt(Math.round(rate));
      merge.doneBytes += BigInt(Math.round(rate * seconds));
      if (merge.doneBytes >= merge.totalBytes) {
        merge.doneBytes = merge.totalBytes;
        merge.phase = merge.kind === MergeKind.ACTIVE_COMMIT ? MergePhase.READY : MergePhase.VERIFYING;
      }
      const left = Number(merge.totalBytes - merge.doneBytes) / rate;
      merge.timeLeft = { $typeName: "google.protobuf.Duration", seconds: BigInt(Math.ceil(left)), nanos: 0 };
      break;
    }
    case MergePhase.READY:
      merge.phase = MergePhase.PIVOTING;
      break;
    case MergePhase.PIVOTING:
      merge.longestPause = { $typeName: "google.protobuf.Duration", seconds: 0n, nanos: 32_000_000 };
      merge.phase = MergePhase.VERIFYING;
      break;
    case MergePhase.VERIFYING:
      operation.phase = OperationPhase.REMOVING;
      merge.phase = MergePhase.REMOVING;
      break;
    default:
      merge.phase = MergePhase.REMOVED;
      merge.freedBytes = merge.plannedFreedBytes;
      operation.phase = OperationPhase.MERGING;
  }
}

function end(world: World, operation: Operation, state: OperationState): void {
  operation.state = state;
  operation.phase = OperationPhase.UNSPECIFIED;
  operation.endedAt = world.at(0);
  if (state === OperationState.SUCCEEDED) forget(world, operation);
  const done = state === OperationState.SUCCEEDED;
  const type = done ? EventType.SNAPSHOT_DELETED : EventType.OPERATION_CANCELLED;
  tell(world, operation, type, done ? "the snapshots are gone" : "it was given up, as asked for", {}, done ? EventSeverity.INFO : EventSeverity.WARNING);
}

/** The snapshots go; each younger one stands on the volume that took its data. */
function forget(world: World, operation: Operation): void {
  const ids = new Set(operation.snapshotIds);
  const list = world.snapshotsOf(operation.vmId);
  world.snapshots.set(
    operation.vmId,
    list.filter((snapshot) => !ids.has(snapshot.id)),
  );
}

function tell(world: World, operation: Operation, type: EventType, message: string, details: Record<string, string> = {}, severity = EventSeverity.INFO): void {
  world.tell({ type, severity, message, details, vmId: operation.vmId, snapshotId: operation.snapshotId, operationId: operation.id, actor: details.request_id ? operation.requestedBy : "" });
}
