// A delete that goes on by itself: queued behind an earlier one of its machine, then copied a step at a time.

import type { DiskProgress, Operation } from "../gen/livemerge/v1/operation_pb";
import type { MergeDirection } from "../gen/livemerge/v1/merge_pb";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { World } from "./world";
import { DiskProgressSchema, OperationKind, OperationPhase, OperationSchema, OperationState } from "../gen/livemerge/v1/operation_pb";
import { EventSeverity, EventType } from "../gen/livemerge/v1/event_service_pb";
import { MergeKind, MergePhase } from "../gen/livemerge/v1/merge_pb";
import { RATE, planOf } from "./plan";
import { SnapshotState } from "../gen/livemerge/v1/snapshot_service_pb";
import { create } from "@bufbuild/protobuf";
import { hasEnded } from "../logic/progress";
import { idOf } from "./world";

/** How somebody wants it. */
export interface Wish {
  readonly requestId: string;
  readonly direction?: MergeDirection;
  readonly bytesPerSecond?: bigint;
}

export function begin(world: World, chosen: readonly Snapshot[], { requestId, direction, bytesPerSecond = 0n }: Wish): Operation {
  const plan = planOf(world, chosen, { ...(direction === undefined ? {} : { direction }), bytesPerSecond });
  const [first] = chosen;
  const vmId = first?.vmId ?? "";
  const ahead = world.operations.filter((each) => each.vmId === vmId && !hasEnded(each)).length;
  const operation = create(OperationSchema, {
    id: idOf(2, world.operations.length + 1),
    kind: OperationKind.DELETE_SNAPSHOT,
    state: OperationState.QUEUED,
    vmId,
    snapshotId: first?.id ?? "",
    snapshotName: first?.name ?? "",
    snapshotIds: chosen.map((snapshot) => snapshot.id),
    bytesPerSecond,
    requestId,
    requestedBy: "token:scripted",
    createdAt: world.at(0),
    estimatedTime: plan.estimatedTime,
    revision: 1n,
    ...(ahead > 0 ? { waiting: { reason: "VM_BUSY", message: "an earlier operation of the machine goes first", queuePosition: ahead } } : {}),
  });
  world.operations.unshift(operation);
  for (const snapshot of chosen) snapshot.state = SnapshotState.DELETING;
  tell(world, operation, EventType.SNAPSHOT_DELETE_REQUESTED, "somebody asked for the deletion", { request_id: requestId });
  if (ahead === 0) run(world, operation, direction);
  return operation;
}

/** Its turn has come: the chains are as they are now. */
function run(world: World, operation: Operation, direction?: MergeDirection): void {
  const chosen = world.snapshotsOf(operation.vmId).filter((snapshot) => operation.snapshotIds.includes(snapshot.id));
  operation.state = OperationState.RUNNING;
  operation.phase = OperationPhase.MERGING;
  operation.waiting = undefined;
  operation.startedAt = world.at(0);
  const way = { ...(direction === undefined ? {} : { direction }), bytesPerSecond: operation.bytesPerSecond };
  operation.disks = planOf(world, chosen, way).merges.map((merge) =>
    create(DiskProgressSchema, {
      disk: merge.disk,
      round: merge.round,
      kind: merge.kind,
      phase: MergePhase.PENDING,
      kept: merge.kept,
      removed: merge.removed,
      totalBytes: merge.copyBytes,
      plannedBytes: merge.copyBytes,
      ...(merge.estimatedTime ? { plannedTime: merge.estimatedTime } : {}),
      plannedFreedBytes: merge.freedBytes,
    }),
  );
  tell(world, operation, EventType.LIVE_MERGE_STARTED, "the merge was begun");
}

/** A step of `seconds` of everything that goes on. */
export function advance(world: World, seconds: number): void {
  const deletes = world.operations.filter((each) => each.kind === OperationKind.DELETE_SNAPSHOT && !hasEnded(each)).reverse();
  for (const operation of deletes) {
    if (operation.state === OperationState.RUNNING) step(world, operation, seconds);
    else if (deletes.find((each) => each.vmId === operation.vmId) === operation) run(world, operation);
  }
}

function step(world: World, operation: Operation, seconds: number): void {
  operation.revision += 1n;
  if (operation.cancelRequested) return end(world, operation, OperationState.CANCELLED);
  const open = operation.disks.filter((disk) => disk.phase !== MergePhase.REMOVED);
  if (open.length === 0) return end(world, operation, OperationState.SUCCEEDED);
  const round = Math.min(...open.map((merge) => merge.round));
  for (const merge of open) if (merge.round === round) goOn(world, operation, merge, seconds);
}

function goOn(world: World, operation: Operation, merge: DiskProgress, seconds: number): void {
  switch (merge.phase) {
    case MergePhase.PENDING:
      merge.phase = MergePhase.COPYING;
      break;
    case MergePhase.COPYING:
      copy(world, operation, merge, seconds);
      break;
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
      merge.bytesPerSecond = 0n;
      merge.timeLeft = undefined;
      break;
    default:
      merge.phase = MergePhase.REMOVED;
      merge.freedBytes = merge.plannedFreedBytes;
      operation.phase = OperationPhase.MERGING;
      world.fold(operation.vmId, merge.disk, merge.kept?.name ?? "", merge.removed.map((volume) => volume.name));
      tell(world, operation, EventType.VOLUME_REMOVED, `merged volumes of ${merge.disk} were removed`);
  }
}

/** A pull stops the guest at its end; a commit below the active layer does not. */
const AFTER_COPY: Partial<Record<MergeKind, MergePhase>> = {
  [MergeKind.ACTIVE_COMMIT]: MergePhase.READY,
  [MergeKind.PULL]: MergePhase.PIVOTING,
};

function copy(world: World, operation: Operation, merge: DiskProgress, seconds: number): void {
  const rate = operation.bytesPerSecond > 0n ? Number(operation.bytesPerSecond) : RATE * (0.8 + 0.4 * Math.abs(Math.sin(world.now() / 3_000)));
  merge.bytesPerSecond = BigInt(Math.round(rate));
  merge.doneBytes += BigInt(Math.round(rate * seconds));
  if (merge.doneBytes >= merge.totalBytes) {
    merge.doneBytes = merge.totalBytes;
    merge.phase = AFTER_COPY[merge.kind] ?? MergePhase.VERIFYING;
  }
  const left = Number(merge.totalBytes - merge.doneBytes) / rate;
  merge.timeLeft = { $typeName: "google.protobuf.Duration", seconds: BigInt(Math.ceil(left)), nanos: 0 };
}

/** Ends a merge as when its machine's process has died. */
export function crash(world: World, operation: Operation): void {
  operation.failure = { $typeName: "livemerge.v1.Failure", reason: "VM_DIED", message: "the machine's process is gone", metadata: { vm: operation.vmId, disk: "vda" } };
  for (const merge of operation.disks) {
    if (merge.phase === MergePhase.REMOVED) continue;
    giveUp(merge, MergePhase.FAILED);
    merge.failure = operation.failure;
  }
  end(world, operation, OperationState.FAILED);
}

/** How far a copy had come is in no record: after its end nobody knows it. */
function giveUp(merge: DiskProgress, phase: MergePhase): void {
  merge.phase = phase;
  merge.doneBytes = 0n;
  merge.totalBytes = 0n;
  merge.bytesPerSecond = 0n;
  merge.timeLeft = undefined;
  merge.longestPause = undefined;
}

function end(world: World, operation: Operation, state: OperationState): void {
  operation.revision += 1n;
  operation.state = state;
  operation.phase = OperationPhase.UNSPECIFIED;
  operation.endedAt = world.at(0);
  const ids = new Set(operation.snapshotIds);
  const list = world.snapshotsOf(operation.vmId);
  if (state === OperationState.SUCCEEDED) {
    world.snapshots.set(
      operation.vmId,
      list.filter((snapshot) => !ids.has(snapshot.id)),
    );
    return tell(world, operation, EventType.SNAPSHOT_DELETED, "the snapshots are gone");
  }
  for (const snapshot of list) if (ids.has(snapshot.id)) snapshot.state = SnapshotState.INCOMPLETE;
  if (state === OperationState.CANCELLED) {
    for (const merge of operation.disks) if (merge.phase !== MergePhase.REMOVED) giveUp(merge, MergePhase.CANCELLED);
    return tell(world, operation, EventType.OPERATION_CANCELLED, "it was given up, as asked for", {}, EventSeverity.WARNING);
  }
  const { reason = "", message = "" } = operation.failure ?? {};
  tell(world, operation, EventType.LIVE_MERGE_FAILED, message, { reason }, EventSeverity.ERROR);
}

function tell(world: World, operation: Operation, type: EventType, message: string, details: Record<string, string> = {}, severity = EventSeverity.INFO): void {
  world.tell({ type, severity, message, details, vmId: operation.vmId, snapshotId: operation.snapshotId, operationId: operation.id, actor: details.request_id ? operation.requestedBy : "" });
}
