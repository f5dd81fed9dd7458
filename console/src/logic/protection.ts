// Only protected snapshots ask for more than a click: the name of the first of them, as it is written.

import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";

/** Whether what was typed lifts the protection; nothing has to be typed where there is none. */
export function typedRight(typed: string, locked: readonly Snapshot[]): boolean {
  const [first] = locked;
  return first === undefined || typed.normalize("NFC") === first.name.normalize("NFC");
}
