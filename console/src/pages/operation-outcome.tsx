// How an operation ended, and what can be done now.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import { Fact, ReasonBox } from "../ui/problem";
import { Link } from "../ui/link";
import { OperationKind, OperationState } from "../gen/livemerge/v1/operation_pb";
import { adviceFor, dataAfter } from "../logic/reasons";
import { deleteSnapshots } from "../logic/commands";
import { CommandBox } from "../ui/copy";
import { go } from "../state/location";
import { mayChange } from "../session/session";
import { seconds, span } from "../logic/time";
import { operationTone } from "../logic/words";
import { outcome } from "../logic/headline";
import { took } from "../logic/progress";

export function Outcome({ operation }: { operation: Operation }) {
  const { failure } = operation;
  const pauses = operation.disks.map((disk) => seconds(disk.longestPause) ?? 0);
  const pause = Math.max(0, ...pauses);
  const deletes = operation.kind === OperationKind.DELETE_SNAPSHOT;
  return (
    <div class={`card outcome ${operationTone(operation.state)}`} role="status">
      <p>
        <strong>{outcome(operation, took(operation))}</strong>
      </p>
      {deletes && pause > 0 && <p class="faint">The guest stood still for {span(pause)} at most.</p>}
      {failure && (
        <>
          <p>{dataAfter(failure.reason)}</p>
          <ReasonBox reason={failure.reason} message={failure.message} advice={adviceFor(failure.reason)}>
            <dl class="facts">
              {Object.entries(failure.metadata).map(([name, value]) => (
                <Fact key={name} name={name} value={value} />
              ))}
            </dl>
          </ReasonBox>
        </>
      )}
      <div class="line">
        <Link to={{ page: "vm", id: operation.vmId }}>The machine and its chains</Link>
        {deletes && operation.state !== OperationState.SUCCEEDED && (
          <button
            type="button"
            class="primary"
            disabled={!mayChange()}
            onClick={() => go({ page: "vm", id: operation.vmId, dialog: { kind: "delete", snapshots: operation.snapshotIds } })}
          >
            Plan it again
          </button>
        )}
      </div>
      {deletes && <CommandBox commands={deleteSnapshots({ vm: operation.vmId, snapshots: operation.snapshotIds, requestId: "" })} />}
    </div>
  );
}
