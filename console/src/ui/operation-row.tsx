// An operation in a list.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import { Badge } from "./badge";
import { Bar } from "./bar";
import { Link } from "./link";
import { Name } from "./text";
import { Time } from "./time";
import { OperationState } from "../gen/livemerge/v1/operation_pb";
import { hasEnded, totals } from "../logic/progress";
import { operationState, operationTone } from "../logic/words";
import { rate } from "../logic/bytes";
import { span } from "../logic/time";
import { inShort, title } from "../logic/headline";

export function OperationRow({ operation, vmName }: { operation: Operation; vmName?: string }) {
  const { done, total, rate: speed, left } = totals(operation);
  const running = operation.state === OperationState.RUNNING;
  const part = total > 0 ? done / total : undefined;
  return (
    <Link to={{ page: "operation", id: operation.id }} class="row operation">
      <span class="main">
        <Name of={title(operation)} />
        <small class="faint line tight">
          {vmName && <Name of={vmName} />}
          <span>{inShort(operation)}</span>
          {operation.failure && <span>{operation.failure.reason}</span>}
          {!operation.failure && operation.waiting && <span>{operation.waiting.reason}</span>}
        </small>
      </span>
      <span class="side">
        <Badge tone={operationTone(operation.state)}>{operationState(operation.state)}</Badge>
      </span>
      <span class="extra">
        {running && <Bar done={part} label="Copied" />}
        {running && speed > 0 && (
          <small class="faint">
            {rate(speed)}, {left === undefined ? "" : `${span(left)} left`}
          </small>
        )}
        {!running && !hasEnded(operation) && <small class="faint">waits</small>}
      </span>
      <span class="extra faint">
        <Name of={operation.requestedBy} />
      </span>
      <span class="extra faint">
        <Time at={operation.endedAt ?? operation.createdAt} />
      </span>
    </Link>
  );
}
