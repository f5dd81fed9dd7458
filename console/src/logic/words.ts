// Enums as words. An enum value that this version does not know is shown as its number.

import { EventSeverity, EventType } from "../gen/livemerge/v1/event_service_pb";
import { HostStatus } from "../gen/livemerge/v1/inventory_service_pb";
import { FindingKind, FindingSeverity, Repair, RepairOutcome } from "../gen/livemerge/v1/consistency_pb";
import { MergeKind, MergePhase } from "../gen/livemerge/v1/merge_pb";
import { OperationKind, OperationPhase, OperationState } from "../gen/livemerge/v1/operation_pb";
import { SnapshotConsistency } from "../gen/livemerge/v1/quiesce_pb";
import { MergeWarningReason, SnapshotOrigin, SnapshotState } from "../gen/livemerge/v1/snapshot_service_pb";
import { VmState } from "../gen/livemerge/v1/vm_pb";
import { VolumeFormat } from "../gen/livemerge/v1/volume_pb";

/** How a word is coloured; the word itself always says the same. */
export type Tone = "good" | "busy" | "warn" | "bad" | "calm";

type Names = Record<number, string>;

function name(names: unknown, value: number): string {
  return (names as Names)[value] ?? String(value);
}

function plain(names: unknown, value: number): string {
  return value === 0 ? "not known" : name(names, value).toLowerCase().replaceAll("_", " ");
}

export const eventType = (type: EventType) => name(EventType, type);
export const eventWords = (type: EventType) => plain(EventType, type);
export const severityWord = (severity: EventSeverity) => plain(EventSeverity, severity);
export const findingKind = (kind: FindingKind) => plain(FindingKind, kind);
export const findingSeverity = (severity: FindingSeverity) => plain(FindingSeverity, severity);
export const warningReason = (reason: MergeWarningReason) => name(MergeWarningReason, reason);
export const formatWord = (format: VolumeFormat) => plain(VolumeFormat, format);
export const hostStatus = (status: HostStatus) => name(HostStatus, status);

export function vmState(state: VmState): string {
  return state === VmState.UNKNOWN ? "unknown" : plain(VmState, state);
}

export function vmTone(state: VmState): Tone {
  switch (state) {
    case VmState.RUNNING:
      return "good";
    case VmState.UNKNOWN:
    case VmState.UNSPECIFIED:
      return "warn";
    default:
      return "calm";
  }
}

export function hostTone(status: HostStatus): Tone {
  switch (status) {
    case HostStatus.UP:
      return "good";
    case HostStatus.MAINTENANCE:
      return "busy";
    case HostStatus.UNSPECIFIED:
      return "warn";
    default:
      return "bad";
  }
}

export function snapshotState(state: SnapshotState): string {
  return plain(SnapshotState, state);
}

export function snapshotTone(state: SnapshotState): Tone {
  switch (state) {
    case SnapshotState.READY:
      return "good";
    case SnapshotState.INCOMPLETE:
      return "bad";
    default:
      return "busy";
  }
}

export function originWords(origin: SnapshotOrigin): string {
  switch (origin) {
    case SnapshotOrigin.REQUESTED:
      return "taken here";
    case SnapshotOrigin.DISCOVERED:
      return "found";
    case SnapshotOrigin.LEFT_BY_MERGE:
      return "left by a merge";
    default:
      return "origin not known";
  }
}

export function originMeans(origin: SnapshotOrigin): string {
  switch (origin) {
    case SnapshotOrigin.DISCOVERED:
      return "Somebody else took it: its layers were found in the chain.";
    case SnapshotOrigin.LEFT_BY_MERGE:
      return "The guest outran a merge, which gave it a fresh overlay. Delete it like any other.";
    default:
      return "";
  }
}

export function consistencyWords(consistency: SnapshotConsistency): string {
  switch (consistency) {
    case SnapshotConsistency.CRASH:
      return "as after a power cut";
    case SnapshotConsistency.FROZEN:
      return "file systems frozen";
    case SnapshotConsistency.OFF:
      return "machine was off";
    default:
      return "consistency not known";
  }
}

export function operationKind(kind: OperationKind): string {
  switch (kind) {
    case OperationKind.CREATE_SNAPSHOT:
      return "create";
    case OperationKind.DELETE_SNAPSHOT:
      return "delete";
    default:
      return "operation";
  }
}

export function operationState(state: OperationState): string {
  return state === OperationState.SUCCEEDED ? "done" : plain(OperationState, state);
}

export function operationTone(state: OperationState): Tone {
  switch (state) {
    case OperationState.SUCCEEDED:
      return "good";
    case OperationState.FAILED:
      return "bad";
    case OperationState.CANCELLED:
      return "warn";
    default:
      return "busy";
  }
}

export function operationPhase(phase: OperationPhase): string {
  switch (phase) {
    case OperationPhase.PLANNING:
      return "planning";
    case OperationPhase.CREATING_OVERLAYS:
      return "creating overlays";
    case OperationPhase.MERGING:
      return "merging";
    case OperationPhase.REMOVING:
      return "removing merged volumes";
    default:
      return "";
  }
}

export function mergePhase(phase: MergePhase): string {
  switch (phase) {
    case MergePhase.UNSPECIFIED:
    case MergePhase.PENDING:
      return "planned";
    case MergePhase.READY:
      return "caught up";
    case MergePhase.PIVOTING:
      return "switching the guest";
    case MergePhase.OVERLAYING:
      return "giving the guest an overlay";
    case MergePhase.REMOVING:
      return "removing the volume";
    case MergePhase.REMOVED:
      return "volume removed";
    default:
      return plain(MergePhase, phase);
  }
}

/** Which way the data go. */
export function wayWords(kind: MergeKind): string {
  switch (kind) {
    case MergeKind.ACTIVE_COMMIT:
      return "Commits the active layer down, then switches the guest to the older volume";
    case MergeKind.INTERMEDIATE_COMMIT:
      return "Commits layers below the active one down; the guest is not switched";
    case MergeKind.PULL:
      return "Pulls layers up into the active one; the guest is not switched";
    case MergeKind.OFFLINE_COMMIT:
      return "Commits down while the machine is off";
    default:
      return "Merges in a way that is not known here";
  }
}

export function repairWords(repair: Repair): string {
  switch (repair) {
    case Repair.REMOVE_VOLUME:
      return "Remove the volume";
    case Repair.RESUME_REMOVAL:
      return "Go on freeing it";
    case Repair.DELETE_SNAPSHOT:
      return "Delete the snapshot again";
    case Repair.MARK_INCOMPLETE:
      return "Mark the snapshot incomplete";
    case Repair.FORGET_DISK:
      return "Forget the disk in the record";
    default:
      return "No safe repair";
  }
}

export function repairEffect(repair: Repair): string {
  switch (repair) {
    case Repair.REMOVE_VOLUME:
      return "The host removes the volume by its identity, past its own gate. Where the domain keeps what it removes, it can be restored for a while.";
    case Repair.RESUME_REMOVAL:
      return "The host goes on freeing the space of the condemned volume. It cannot be restored afterwards.";
    case Repair.DELETE_SNAPSHOT:
      return "The snapshot is deleted again, as an operation that can be watched. It does what is left.";
    case Repair.MARK_INCOMPLETE:
      return "The snapshot becomes INCOMPLETE in the record, so that it can be deleted. No volume is touched.";
    case Repair.FORGET_DISK:
      return "The snapshot no longer names its volume on this disk, and leaves the list if it names no other. The volume stays in storage.";
    default:
      return "";
  }
}

export function repairOutcome(outcome: RepairOutcome): string {
  switch (outcome) {
    case RepairOutcome.DONE:
      return "Repaired.";
    case RepairOutcome.STARTED:
      return "Started; it goes on by itself.";
    case RepairOutcome.ALREADY_GONE:
      return "There is no such finding any more; nothing was done.";
    default:
      return "The server says nothing of the outcome.";
  }
}

export function severityTone(severity: EventSeverity | FindingSeverity): Tone {
  // Both enums count the same way: info, warning, error.
  return severity === 3 ? "bad" : severity === 2 ? "warn" : "calm";
}
