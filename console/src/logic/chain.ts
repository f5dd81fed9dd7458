// A disk's chain as it is drawn: base first, the layer that the guest writes last.

import type { ChainLayer, VolumeChain } from "../gen/livemerge/v1/volume_pb";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import { volumeKey } from "./names";

/** What a delete does to a layer. */
export type Role = "none" | "kept" | "removed";

/** The signs that drawing and text have in common. */
export const MARKS: Readonly<Record<Role, string>> = { none: "", kept: "●", removed: "✕" };

/** One layer, and what is known of it beside the host's word. */
export interface Layer {
  /** Stays the same while the volume is in the chain, so that a drawing can move it. */
  readonly key: string;
  readonly name: string;
  readonly locator: string;
  readonly format: ChainLayer["format"];
  readonly allocated: number;
  readonly virtual: number;
  readonly base: boolean;
  /** The guest writes it. */
  readonly active: boolean;
  /** Those whose point in time it holds. */
  readonly snapshots: readonly Snapshot[];
  /** What else is built on it. */
  readonly sharedWith: readonly string[];
  readonly encrypted: boolean;
  readonly bitmaps: readonly string[];
  /** Between base and active layer, and no snapshot accounts for it. */
  readonly recordless: boolean;
  readonly role: Role;
}

/** The layers of a chain, base first. */
export function layersOf(chain: VolumeChain, snapshots: readonly Snapshot[]): Layer[] {
  const last = chain.layers.length - 1;
  const holders = byVolume(chain.disk, snapshots);
  return chain.layers.map((layer, index) => {
    const froze = (layer.volume && holders.get(volumeKey(layer.volume))) ?? [];
    const active = index === last;
    return {
      key: layer.volume ? volumeKey(layer.volume) : layer.locator,
      name: layer.volume?.name || layer.locator || "?",
      locator: layer.locator,
      format: layer.format,
      allocated: Number(layer.allocatedBytes),
      virtual: Number(layer.virtualBytes),
      base: index === 0,
      active,
      snapshots: froze,
      sharedWith: layer.sharedWith,
      encrypted: layer.encrypted,
      bitmaps: layer.dirtyBitmaps,
      recordless: index > 0 && !active && froze.length === 0,
      role: "none",
    };
  });
}

/** The snapshots that name each volume of a disk. */
function byVolume(disk: string, snapshots: readonly Snapshot[]): Map<string, Snapshot[]> {
  const found = new Map<string, Snapshot[]>();
  for (const snapshot of snapshots) {
    const volumes = snapshot.disks.filter((each) => each.disk === disk && each.volume !== undefined);
    for (const key of new Set(volumes.map((each) => volumeKey(each.volume)))) {
      found.set(key, [...(found.get(key) ?? []), snapshot]);
    }
  }
  return found;
}

/** A block of the drawing, in hundredths of its width. */
export interface Block {
  readonly x: number;
  readonly width: number;
}

/** The room between two blocks. */
const GAP = 0.6;
/** So many blocks stand side by side without room between. */
export function dense(many: number): boolean {
  return many > 60;
}

/** What all blocks get whatever they hold, so that an empty layer can still be seen and clicked. */
const SHARE = 0.35;

/** What the whole width of a drawing stands for. */
export interface Scale {
  readonly bytes: number;
  readonly layers: number;
}

/** The least scale that both fit, so that the two drawings can be compared. */
export function commonScale(...drawings: readonly (readonly number[])[]): Scale {
  return {
    bytes: Math.max(...drawings.map(allocated)),
    layers: Math.max(...drawings.map((sizes) => sizes.length)),
  };
}

function allocated(sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + Math.max(size, 0), 0);
}

/** Blocks from left to right. The width above a common least one follows the allocated bytes. */
export function blocks(sizes: readonly number[], scale: Scale = commonScale(sizes)): Block[] {
  const many = Math.max(scale.layers, sizes.length, 1);
  const gap = dense(many) ? 0 : GAP;
  const room = 100 - gap * (many - 1);
  const least = (room * SHARE) / many;
  const whole = Math.max(scale.bytes, allocated(sizes), 1);
  const rest = room * (1 - SHARE);
  let x = 0;
  return sizes.map((size) => {
    const width = least + (rest * Math.max(size, 0)) / whole;
    const block = { x, width };
    x += width + gap;
    return block;
  });
}

/** What a screen reader is told instead of the drawing. */
export function chainSentence(disk: string, layers: readonly Layer[]): string {
  const flagged = layers.filter((layer) => layer.recordless || layer.sharedWith.length > 0).length;
  const active = layers.find((layer) => layer.active);
  const end = active ? `; the guest writes ${active.name}` : "";
  const flags = flagged > 0 ? `; ${flagged} flagged` : "";
  return `Chain of ${disk}: ${layers.length} ${layers.length === 1 ? "layer" : "layers"}, base first${end}${flags}`;
}
