// One operation, from acceptance to end.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Sample } from "../logic/spark";
import { Badge } from "../ui/badge";
import { Bandwidth } from "../dialogs/bandwidth";
import { Code, Name } from "../ui/text";
import { CancelButton } from "../dialogs/cancel";
import { DiskCards } from "./operation-disks";
import { EventList } from "../ui/event-list";
import { FullTime } from "../ui/time";
import { Link } from "../ui/link";
import { Loading } from "../ui/empty";
import { OperationState } from "../gen/livemerge/v1/operation_pb";
import { Outcome } from "./operation-outcome";
import { ReadProblem } from "../ui/read-problem";
import { ReasonBox } from "../ui/problem";
import { Sparkline } from "../ui/sparkline";
import { Stepper } from "../ui/stepper";
import { adviceFor } from "../logic/reasons";
import { announcement, title } from "../logic/headline";
import { bytes, bytesOr, rate } from "../logic/bytes";
import { hasEnded, steps, takesLimit, totals } from "../logic/progress";
import { moment, relative, seconds, span } from "../logic/time";
import { now } from "../ui/time";
import { operationState, operationTone } from "../logic/words";
import { useEvents } from "../state/events";
import { useOperation } from "../state/operation";
import { useVm } from "../state/machine";

export function OperationPage({ id }: { id: string }) {
  const { operation, problem, rates, refresh } = useOperation(id);
  return (
    <section>
      <p class="crumbs">
        <Link to={{ page: "operations", group: "", q: "", vm: "" }}>Operations</Link> /
      </p>
      <ReadProblem problem={problem} onRetry={refresh} />
      {operation === undefined && !problem && <Loading lines={6} />}
      {operation && <Shown operation={operation} rates={rates} refresh={refresh} />}
    </section>
  );
}

function Shown({ operation, rates, refresh }: { operation: Operation; rates: readonly Sample[]; refresh: () => void }) {
  const ended = hasEnded(operation);
  return (
    <>
      <Head operation={operation} />
      {/* Said in tenths, and only when it has changed. */}
      <p class="unseen" aria-live="polite">
        {announcement(operation)}
      </p>
      <Stepper steps={steps(operation)} />
      {operation.waiting && !ended && <Waits operation={operation} />}
      {ended ? <Outcome operation={operation} /> : operation.state === OperationState.RUNNING && <Live operation={operation} rates={rates} />}
      {!ended && (
        <div class="controls card">
          {takesLimit(operation) && <Bandwidth operation={operation} onChanged={refresh} />}
          <CancelButton operation={operation} onChanged={refresh} />
        </div>
      )}
      <DiskCards operation={operation} />
      <History operation={operation} />
    </>
  );
}

function Head({ operation }: { operation: Operation }) {
  const vm = useVm(operation.vmId).data;
  return (
    <header class="head">
      <div class="line">
        <h1>
          <Name of={title(operation)} />
        </h1>
        <Badge tone={operationTone(operation.state)}>{operationState(operation.state)}</Badge>
      </div>
      <dl class="facts wide">
        <dt>Machine</dt>
        <dd>
          <Link to={{ page: "vm", id: operation.vmId }}>
            <Name of={vm?.name ?? operation.vmId} />
          </Link>
        </dd>
        <dt>Machine is on</dt>
        <dd>{vm?.hostId ?? "–"}</dd>
        <dt>Asked by</dt>
        <dd>
          <Name of={operation.requestedBy} />
        </dd>
        <dt>Accepted</dt>
        <dd>
          <FullTime at={operation.createdAt} />
        </dd>
        <dt>Begun</dt>
        <dd>
          <FullTime at={operation.startedAt} none="not yet" />
        </dd>
        <dt>Request id</dt>
        <dd>
          <Code of={operation.requestId} />
        </dd>
      </dl>
    </header>
  );
}

/** What it waits for: it goes on by itself. */
function Waits({ operation }: { operation: Operation }) {
  const { waiting } = operation;
  if (!waiting) return null;
  const next = moment(waiting.nextTryAt);
  return (
    <ReasonBox reason={waiting.reason} message={waiting.message} advice={adviceFor(waiting.reason)} calm>
      <p class="faint">
        {waiting.queuePosition > 0 ? `Place ${waiting.queuePosition} in the queue. ` : ""}
        {waiting.attempts > 0 ? `Tried ${waiting.attempts} times. ` : ""}
        {next ? `The next try is ${relative(next, now.value)} at the latest.` : ""}
      </p>
    </ReasonBox>
  );
}

function Live({ operation, rates }: { operation: Operation; rates: readonly Sample[] }) {
  const sum = totals(operation);
  const planned = seconds(operation.estimatedTime);
  return (
    <div class="numbers card">
      <div class="number">
        <strong>{sum.total > 0 ? `${Math.floor((sum.done / sum.total) * 100)} %` : "–"}</strong>
        <span class="faint">
          {bytes(sum.done)} of {bytesOr(sum.total, "an amount not known yet")}
        </span>
      </div>
      <div class="number">
        <strong>{sum.left === undefined ? "–" : span(sum.left)}</strong>
        <span class="faint">left{planned === undefined ? "" : `; planned ${span(planned)}`}</span>
      </div>
      <div class="number">
        <strong>{sum.rate > 0 ? rate(sum.rate) : "–"}</strong>
        <Sparkline samples={rates} />
      </div>
    </div>
  );
}

/** What the audit log has of it. */
function History({ operation }: { operation: Operation }) {
  const { events, problem } = useEvents({ vm: "", operation: operation.id, severity: 0, types: [] });
  return (
    <>
      <div class="line">
        <h2>What happened</h2>
        <Link to={{ page: "events", vm: "", operation: operation.id, severity: "", type: "", q: "" }}>In the audit log</Link>
      </div>
      <ReadProblem problem={problem} />
      <EventList events={events} />
    </>
  );
}
