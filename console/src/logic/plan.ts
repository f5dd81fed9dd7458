// What a delete would do, made from its plan and the chains as they are.

import type { Blocker, MergePlan, PlanDeleteSnapshotResponse } from "../gen/livemerge/v1/snapshot_service_pb";
import type { Layer } from "./chain";
import { MergeKind } from "../gen/livemerge/v1/merge_pb";
import { adviceFor } from "./reasons";
import { bytes, bytesOr } from "./bytes";
import { seconds, span } from "./time";
import { volumeKey } from "./names";

/** One disk before and after. */
export interface DiskChange {
  readonly disk: string;
  /** In the order in which they are done. */
  readonly merges: readonly MergePlan[];
  readonly before: readonly Layer[];
  readonly after: readonly Layer[];
}

/** The disks that the plan changes, in the order in which it names them. */
export function changes(
  plan: PlanDeleteSnapshotResponse,
  chains: ReadonlyMap<string, readonly Layer[]>,
): DiskChange[] {
  const disks = [...new Set(plan.merges.map((merge) => merge.disk))];
  return disks.map((disk) => {
    const merges = plan.merges
      .filter((merge) => merge.disk === disk)
      .sort((one, other) => one.round - other.round);
    const now = chains.get(disk) ?? merges.flatMap(layersOfPlan);
    return { disk, merges, before: now.map((layer) => marked(layer, merges)), after: after(now, merges) };
  });
}

function roleOf(key: string, merges: readonly MergePlan[]): Layer["role"] {
  if (merges.some((merge) => merge.removed.some((volume) => volumeKey(volume) === key))) return "removed";
  if (merges.some((merge) => volumeKey(merge.kept) === key)) return "kept";
  return "none";
}

function marked(layer: Layer, merges: readonly MergePlan[]): Layer {
  return { ...layer, role: roleOf(layer.key, merges) };
}

/** The chain that is left: the kept volumes have what the removed ones held. */
function after(now: readonly Layer[], merges: readonly MergePlan[]): Layer[] {
  const left = now.map((layer) => marked(layer, merges)).filter((layer) => layer.role !== "removed");
  return left.map((layer, index) => {
    const into = merges.filter((merge) => volumeKey(merge.kept) === layer.key);
    const grown = into.reduce((sum, merge) => sum + Number(merge.spaceNeededBytes), 0);
    // A commit gives the kept volume the point in time of the youngest layer that went into it.
    const heirs = into.flatMap((merge) => (merge.kind === MergeKind.PULL ? [] : merge.removed.map(volumeKey)));
    const heir = heirs.length > 0 ? now.find((each) => each.key === heirs.at(-1)) : undefined;
    return {
      ...layer,
      allocated: layer.allocated + grown,
      base: index === 0,
      active: index === left.length - 1,
      snapshots: heir ? heir.snapshots : layer.snapshots,
    };
  });
}

/** Of a chain that nobody shows, what the plan itself names. */
function layersOfPlan(merge: MergePlan): Layer[] {
  const volumes = merge.removed.map(volumeKey);
  const kept = volumeKey(merge.kept);
  const keys = merge.kind === MergeKind.PULL ? [...volumes, kept] : [kept, ...volumes];
  return keys.map((key, index) => ({
    key,
    name: key.slice(key.indexOf("/") + 1),
    locator: "",
    format: 0,
    allocated: 0,
    virtual: 0,
    base: index === 0,
    active: index === keys.length - 1 && merge.kind !== MergeKind.INTERMEDIATE_COMMIT,
    snapshots: [],
    sharedWith: [],
    encrypted: false,
    bitmaps: [],
    recordless: false,
    role: "none",
  }));
}

/** The plan in one sentence: it is what the button does. */
export function summary(plan: PlanDeleteSnapshotResponse): string {
  const time = seconds(plan.estimatedTime);
  const takes = time === undefined ? "takes a time that is not known yet" : `takes about ${span(time)}`;
  return `Copies ${bytesOr(plan.copyBytes, "nothing")}, gives back ${bytesOr(plan.freedBytes, "nothing")}, ${takes}.`;
}

/** Whether there is room, for one merge. */
export interface Room {
  readonly needed: number;
  /** `undefined` when the domain does not say. */
  readonly free: number | undefined;
  readonly enough: boolean;
  readonly words: string;
}

export function room(merge: MergePlan): Room {
  const needed = Number(merge.spaceNeededBytes);
  const free = Number(merge.spaceFreeBytes) > 0 ? Number(merge.spaceFreeBytes) : undefined;
  const words = `needs ${bytesOr(needed, "nothing")}, free: ${free === undefined ? "not known" : bytes(free)}`;
  return { needed, free, enough: free === undefined || needed <= free, words };
}

/** What is in the way, what it is about, and what helps. */
export interface Obstacle {
  readonly reason: string;
  readonly about: string;
  readonly message: string;
  readonly advice: string;
}

/** A thing that many snapshots share is said once. */
export function obstacles(blockers: readonly Blocker[], names: ReadonlyMap<string, string>): Obstacle[] {
  const seen = new Set<string>();
  return blockers.flatMap((blocker) => {
    const snapshot = blocker.snapshotId ? `snapshot ${names.get(blocker.snapshotId) ?? blocker.snapshotId}` : "";
    const about = blocker.disk ? `disk ${blocker.disk}` : snapshot || "the machine";
    const mark = `${blocker.reason} ${about} ${blocker.message}`;
    if (seen.has(mark)) return [];
    seen.add(mark);
    return [{ reason: blocker.reason, about, message: blocker.message, advice: adviceFor(blocker.reason) }];
  });
}
