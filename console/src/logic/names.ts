// Volumes by name.

import type { VolumeRef } from "../gen/livemerge/v1/volume_pb";

/** One volume's key: the same name in another domain is another volume. */
export function volumeKey(volume: VolumeRef | undefined): string {
  return volume === undefined ? "" : `${volume.storage}/${volume.name}`;
}
