// Volumes by name: the first ones, and the others when they are asked for.

import type { VolumeRef } from "../gen/livemerge/v1/volume_pb";
import { Code } from "./text";
import { volumeKey } from "../logic/names";

const FIRST = 6;

export function Volumes({ of }: { of: readonly VolumeRef[] }) {
  const names = of.map(volumeKey);
  const rest = names.slice(FIRST);
  return (
    <>
      {names.slice(0, FIRST).map((name) => (
        <Code key={name} of={name} />
      ))}
      {rest.length > 0 && (
        <details>
          <summary>and {rest.length} more</summary>
          {rest.map((name) => (
            <Code key={name} of={name} />
          ))}
        </details>
      )}
    </>
  );
}
