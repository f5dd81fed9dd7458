// Where a delete stands, disk by disk and as a whole.

import type { DiskProgress, Operation } from "../gen/livemerge/v1/operation_pb";
import { MergeKind, MergePhase } from "../gen/livemerge/v1/merge_pb";
import { OperationKind, OperationPhase, OperationState } from "../gen/livemerge/v1/operation_pb";
import { moment, seconds } from "./time";

const COPIED: ReadonlySet<MergePhase> = new Set([
  MergePhase.VERIFYING,
  MergePhase.MERGED,
  MergePhase.REMOVING,
  MergePhase.REMOVED,
]);
const GIVEN_UP: ReadonlySet<MergePhase> = new Set([MergePhase.FAILED, MergePhase.CANCELLED]);
const ENDED: ReadonlySet<MergePhase> = new Set([...GIVEN_UP, MergePhase.REMOVED]);

/** An end that this version has no state for is an end, too. */
export function hasEnded(operation: Operation): boolean {
  const { SUCCEEDED, FAILED, CANCELLED } = OperationState;
  return operation.endedAt !== undefined || [SUCCEEDED, FAILED, CANCELLED].includes(operation.state);
}

/** Seconds from its begin, or else its acceptance, to its end. */
export function took(operation: Operation): number | undefined {
  const [from, to] = [moment(operation.startedAt ?? operation.createdAt), moment(operation.endedAt)];
  return from && to ? (to.getTime() - from.getTime()) / 1000 : undefined;
}

/** Whether a disk's part is over, one way or another. */
export function mergeHasEnded(disk: DiskProgress): boolean {
  return ENDED.has(disk.phase);
}

/** Whether a disk's merge came to nothing. How far its copy had come is not kept then. */
export function gaveUp(disk: DiskProgress): boolean {
  return GIVEN_UP.has(disk.phase);
}

/** How much is copied, 0 to 1; `undefined` while nobody knows how much there is. */
export function fraction(disk: DiskProgress): number | undefined {
  if (COPIED.has(disk.phase)) return 1;
  const total = Number(disk.totalBytes);
  if (total > 0) return Math.min(Math.max(Number(disk.doneBytes) / total, 0), 1);
  return disk.phase === MergePhase.PENDING || disk.phase === MergePhase.UNSPECIFIED ? 0 : undefined;
}

/** What the guest has written meanwhile, and had to be copied besides the plan. */
export function guestWrote(disk: DiskProgress): number {
  return Math.max(Number(disk.totalBytes) - Number(disk.plannedBytes), 0);
}

/** Bytes still to copy: while the copy runs, what differs between the two volumes. */
export function dirtyBytes(disk: DiskProgress): number {
  return COPIED.has(disk.phase) ? 0 : Math.max(Number(disk.totalBytes) - Number(disk.doneBytes), 0);
}

/** The merges of the round that is under way: all that have ended, but the last, are over. */
export function underWay(operation: Operation): DiskProgress[] {
  const open = operation.disks.filter((disk) => !ENDED.has(disk.phase));
  if (open.length === 0) return [];
  const round = Math.min(...open.map((disk) => disk.round));
  return operation.disks.filter((disk) => disk.round === round);
}

/** The sums over all disks but those that came to nothing. */
export interface Totals {
  readonly done: number;
  readonly total: number;
  readonly rate: number;
  /** Seconds until all rounds are copied; `undefined` while not known. */
  readonly left: number | undefined;
  readonly freed: number;
}

export function totals(operation: Operation): Totals {
  let [done, total, rate, freed] = [0, 0, 0, 0];
  for (const disk of operation.disks) {
    freed += Number(disk.freedBytes);
    if (gaveUp(disk)) continue;
    const whole = Number(disk.totalBytes) > 0 ? Number(disk.totalBytes) : Number(disk.plannedBytes);
    total += whole;
    done += COPIED.has(disk.phase) ? whole : Math.min(Number(disk.doneBytes), whole);
    rate += COPIED.has(disk.phase) ? 0 : Number(disk.bytesPerSecond);
  }
  return { done, total, rate, left: timeLeft(operation), freed };
}

/** The round under way as its hosts see it, and each later one as it was planned. */
function timeLeft(operation: Operation): number | undefined {
  const now = underWay(operation)[0]?.round;
  const open = operation.disks.filter((disk) => !COPIED.has(disk.phase) && !gaveUp(disk));
  let left: number | undefined;
  for (const round of new Set(open.map((disk) => disk.round))) {
    const disks = open.filter((disk) => disk.round === round);
    // The disks of a round go together, so the slowest tells.
    const times = disks.flatMap((disk) => seconds(round === now ? disk.timeLeft : disk.plannedTime) ?? []);
    if (times.length === 0) return undefined;
    left = (left ?? 0) + Math.max(...times);
  }
  return left;
}

/** A step of the stepper. */
export interface Step {
  readonly name: string;
  readonly state: "done" | "now" | "next" | "failed";
}

const MERGE_STEPS: readonly (readonly [string, readonly MergePhase[]])[] = [
  ["Copy", [MergePhase.COPYING, MergePhase.OVERLAYING, MergePhase.CANCELLING]],
  ["Caught up", [MergePhase.READY]],
  ["Switch the guest", [MergePhase.PIVOTING]],
  ["Verify", [MergePhase.VERIFYING, MergePhase.MERGED]],
];
const PIVOT_STEPS: ReadonlySet<string> = new Set(["Caught up", "Switch the guest"]);

/** The steps from acceptance to end. Steps that this operation does not have are left out. */
export function steps(operation: Operation): Step[] {
  const creates = operation.kind === OperationKind.CREATE_SNAPSHOT;
  const pivots =
    operation.disks.length === 0 || operation.disks.some((disk) => disk.kind === MergeKind.ACTIVE_COMMIT);
  const middle = creates
    ? ["Create overlays"]
    : [...MERGE_STEPS.map(([name]) => name).filter((name) => pivots || !PIVOT_STEPS.has(name)), "Remove volumes"];
  const names = ["Queue", "Plan", ...middle, "Done"];
  const now = names.indexOf(stepName(operation));
  const failed = operation.state === OperationState.FAILED || operation.state === OperationState.CANCELLED;
  return names.map((name, index) => {
    if (operation.state === OperationState.SUCCEEDED || index < now) return { name, state: "done" };
    if (index === now) return { name, state: failed ? "failed" : "now" };
    return { name, state: "next" };
  });
}

function stepName(operation: Operation): string {
  if (operation.state === OperationState.SUCCEEDED) return "Done";
  if (operation.state === OperationState.QUEUED) return "Queue";
  if (operation.phase === OperationPhase.CREATING_OVERLAYS) return "Create overlays";
  if (operation.phase === OperationPhase.REMOVING) return "Remove volumes";
  if (operation.phase === OperationPhase.MERGING) return mergeStep(underWay(operation));
  if (hasEnded(operation) && operation.startedAt === undefined) return "Queue";
  // It has disks once it is planned; how far their copies had come is not kept after an end without success.
  return hasEnded(operation) && operation.disks.length > 0 ? "Copy" : "Plan";
}

/** The disks go together, so the one that is furthest behind tells. */
function mergeStep(disks: readonly DiskProgress[]): string {
  const known = disks.map(stepOf).filter((index) => index >= 0);
  return MERGE_STEPS[known.length > 0 ? Math.min(...known) : 0]?.[0] ?? "Copy";
}

function stepOf({ kind, phase }: DiskProgress): number {
  const at = MERGE_STEPS.findIndex(([, phases]) => phases.includes(phase));
  // A pull stops the guest for a moment at its end, too, and switches nothing: that is the end of its copy.
  return kind !== MergeKind.ACTIVE_COMMIT && PIVOT_STEPS.has(MERGE_STEPS[at]?.[0] ?? "") ? 0 : at;
}

const PAST_RETURN: ReadonlySet<MergePhase> = new Set([MergePhase.PIVOTING, MergePhase.VERIFYING, MergePhase.MERGED]);

/** Why an operation cannot be cancelled now; empty when it can be asked for. The server has the last word. */
export function cancelRefusal(operation: Operation): string {
  if (hasEnded(operation)) return "It has ended.";
  if (operation.kind !== OperationKind.DELETE_SNAPSHOT) return "Taking a snapshot is one short step: it cannot be called off.";
  if (operation.cancelRequested) return "Its end was asked for already.";
  const past = underWay(operation).find((disk) => PAST_RETURN.has(disk.phase)) ?? removal(operation);
  if (past === undefined) return "";
  return `Past the point of no return: on ${past.disk} the guest is being switched, or was. It goes on to its end.`;
}

/** The removal that is all that is left; one that waits can be given up, and so can a round that has not begun. */
function removal(operation: Operation): DiskProgress | undefined {
  const open = operation.disks.filter((disk) => !ENDED.has(disk.phase));
  const only = operation.waiting === undefined && open.every((disk) => disk.phase === MergePhase.REMOVING);
  return only ? open[0] : undefined;
}

/** Whether the limit of its copy can be changed. */
export function takesLimit(operation: Operation): boolean {
  return operation.kind === OperationKind.DELETE_SNAPSHOT && !hasEnded(operation);
}
