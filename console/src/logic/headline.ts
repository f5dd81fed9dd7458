// An operation in one line, also for a screen reader.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import { OperationKind, OperationState } from "../gen/livemerge/v1/operation_pb";
import { bytes } from "./bytes";
import { count } from "./text";
import { hasEnded, took, totals } from "./progress";
import { operationPhase, operationState } from "./words";
import { span } from "./time";

/** `Delete "monday"`, `Delete 3 snapshots`. */
export function title(operation: Operation): string {
  const does = operation.kind === OperationKind.CREATE_SNAPSHOT ? "Take" : "Delete";
  const several = operation.snapshotIds.length;
  return several > 1 ? `${does} ${count(several, "snapshot")}` : `${does} “${operation.snapshotName}”`;
}

/** Where it stands: `merging, its end was asked for`. */
export function standing(operation: Operation): string {
  const place = operation.waiting?.queuePosition ?? 0;
  if (operation.state === OperationState.QUEUED) return place > 0 ? `queued at place ${place}` : "queued";
  if (hasEnded(operation)) return operationState(operation.state);
  const cancel = operation.cancelRequested ? ", its end was asked for" : "";
  return `${operationPhase(operation.phase) || "running"}${cancel}`;
}

/** Where it stands, or what came of it, in a list whose badge has the state already. */
export function inShort(operation: Operation): string {
  const { done, total, freed } = totals(operation);
  if (operation.state === OperationState.SUCCEEDED && freed > 0) return `${bytes(freed)} given back in ${span(took(operation))}`;
  if (hasEnded(operation)) return `after ${span(took(operation))}`;
  const part = operation.state === OperationState.RUNNING && total > 0 ? `, ${Math.floor((done / total) * 100)} %` : "";
  return standing(operation) + part;
}

/** What is read out now and then while it goes on: in tenths, so that it does not chatter. */
export function announcement(operation: Operation): string {
  const { done, total, left } = totals(operation);
  const tenths = total > 0 ? Math.floor((done / total) * 10) * 10 : undefined;
  const copied = tenths === undefined || hasEnded(operation) ? "" : `, ${tenths} percent copied`;
  const minutes = left === undefined || hasEnded(operation) ? "" : `, about ${span(Math.ceil(left / 60) * 60)} left`;
  return `${title(operation)}: ${standing(operation)}${copied}${minutes}`;
}

/** The end in one sentence. */
export function outcome(operation: Operation, seconds: number | undefined): string {
  const freed = totals(operation).freed;
  switch (operation.state) {
    case OperationState.SUCCEEDED:
      return operation.kind === OperationKind.CREATE_SNAPSHOT
        ? `The snapshot is taken, in ${span(seconds)}.`
        : `Done in ${span(seconds)}; ${bytes(freed)} given back.`;
    case OperationState.CANCELLED:
      return `Given up after ${span(seconds)}, as asked for. What a commit had begun to write stays in the list as an INCOMPLETE snapshot: it can be deleted again.`;
    case OperationState.FAILED:
      return `Ended without success after ${span(seconds)}. The snapshots that are left stay in the list.`;
    default:
      return "";
  }
}
