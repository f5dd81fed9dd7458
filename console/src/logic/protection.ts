// Only protected snapshots ask for more than a click: the name of each, as it is written.

import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";

/** What was typed, by the snapshot's id. */
export type Typed = Readonly<Record<string, string>>;

/** Whether what was typed lifts every protection; nothing has to be typed where there is none. */
export function typedRight(typed: Typed, locked: readonly Snapshot[]): boolean {
  return locked.every(({ id, name }) => typed[id]?.normalize("NFC") === name.normalize("NFC"));
}
