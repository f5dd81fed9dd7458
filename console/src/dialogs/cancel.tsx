// Asks an operation to end, while it still can; else says why it cannot.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import { Confirm } from "../ui/confirm";
import { cancelRefusal } from "../logic/progress";
import { mayChange } from "../session/session";
import { useApp } from "../state/app";
import { useId, useState } from "preact/hooks";

export function CancelButton({ operation, onChanged }: { operation: Operation; onChanged: () => void }) {
  const { clients, hub } = useApp();
  const [asked, ask] = useState(false);
  const why = useId();
  const refusal = mayChange() ? cancelRefusal(operation) : "Your role may look, not cancel.";
  const act = async () => {
    await clients.operations.cancelOperation({ operationId: operation.id });
    hub.look();
    return <p>Its end is asked for. What it has come to shows in a moment.</p>;
  };
  return (
    <div class="cancel">
      <button type="button" class="danger" disabled={refusal !== ""} aria-describedby={refusal ? why : undefined} onClick={() => ask(true)}>
        Cancel…
      </button>
      <small id={why} class="faint">
        {refusal}
      </small>
      {asked && (
        <Confirm title="Cancel the operation" verb="Cancel the operation" dismiss="Let it go on" danger act={act} onClose={() => (ask(false), onChanged())}>
          <p>
            The copy stops, and the chain reads the same for the guest. A snapshot that a commit has begun to write stays in the list as INCOMPLETE: it can be deleted
            again, and not be gone back to.
          </p>
        </Confirm>
      )}
    </div>
  );
}
