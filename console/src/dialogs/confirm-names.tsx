// Lifts protections: the name of each protected snapshot is typed.

import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { Typed } from "../logic/protection";
import { Name } from "../ui/text";

export function ConfirmNames({ locked, typed, onTyped }: { locked: readonly Snapshot[]; typed: Typed; onTyped: (typed: Typed) => void }) {
  const alone = locked.length === 1;
  return (
    <div class="note" role="group" aria-label="Protected">
      {!alone && <p>{locked.length} of them are protected. To take the protection off and delete, type the name of each.</p>}
      {locked.map(({ id, name }) => (
        <label key={id} class="field">
          <span>
            {alone ? "It is protected. To take the protection off and delete, type the name " : "The name "}
            <strong>
              <Name of={name} />
            </strong>
          </span>
          <input type="text" value={typed[id] ?? ""} autocomplete="off" spellcheck={false} onInput={(event) => onTyped({ ...typed, [id]: event.currentTarget.value })} />
        </label>
      ))}
    </div>
  );
}
