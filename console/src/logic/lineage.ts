// The snapshots of a machine in the order in which they stand on each other.

import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { VolumeChain } from "../gen/livemerge/v1/volume_pb";
import { moment } from "./time";
import { volumeKey } from "./names";

/** A row of the tree. */
export interface Node {
  readonly snapshot: Snapshot;
  /** None of its volumes is in a chain that was seen. */
  readonly detached: boolean;
  /** Space of its volumes, in bytes; `undefined` while no chain tells. */
  readonly bytes: number | undefined;
}

interface Placed {
  readonly snapshot: Snapshot;
  /** Its place in the chain of each disk that has it. */
  readonly at: ReadonlyMap<string, number>;
  readonly bytes: number;
  readonly age: number;
}

/** Places and sizes by disk and volume: found once, because there may be hundreds. */
type Index = ReadonlyMap<string, { readonly place: number; readonly bytes: number }>;

function indexOf(chains: readonly VolumeChain[]): Index {
  const layers = chains.flatMap((chain) =>
    chain.layers.map((layer, place) => [`${chain.disk} ${volumeKey(layer.volume)}`, { place, bytes: Number(layer.allocatedBytes) }] as const),
  );
  return new Map(layers);
}

function placed(snapshot: Snapshot, index: Index): Placed {
  const at = new Map<string, number>();
  let bytes = 0;
  for (const { disk, volume } of snapshot.disks) {
    const found = volume && index.get(`${disk} ${volumeKey(volume)}`);
    if (!found) continue;
    at.set(disk, found.place);
    bytes += found.bytes;
  }
  return { snapshot, at, bytes, age: moment(snapshot.createdAt)?.getTime() ?? 0 };
}

/**
 * Rows from the oldest to the youngest. Snapshots that a chain has stand in its order; those that no chain
 * has come last, set off.
 */
export function lineage(snapshots: readonly Snapshot[], chains: readonly VolumeChain[]): Node[] {
  const index = indexOf(chains);
  const all = snapshots.map((snapshot) => placed(snapshot, index));
  const inside = all.filter(({ at }) => at.size > 0).sort(inOrder);
  const outside = all.filter(({ at }) => at.size === 0).sort((one, other) => one.age - other.age);
  const known = chains.length > 0;
  return [
    ...inside.map(({ snapshot, bytes }) => ({ snapshot, detached: false, bytes })),
    ...outside.map(({ snapshot }) => ({ snapshot, detached: known, bytes: undefined })),
  ];
}

/** By the first disk that has both; what was found on different disks alone, by its time. */
function inOrder(one: Placed, other: Placed): number {
  for (const [disk, place] of one.at) {
    const others = other.at.get(disk);
    if (others !== undefined && others !== place) return place - others;
  }
  return one.age - other.age;
}
