// What waits, what goes on, what is done.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Route } from "../logic/route";
import { Empty, Loading } from "../ui/empty";
import { Link } from "../ui/link";
import { Name } from "../ui/text";
import { OperationKind } from "../gen/livemerge/v1/operation_pb";
import { OperationRow } from "../ui/operation-row";
import { PAGE_SIZE, readPages } from "../api/pages";
import { ReadProblem } from "../ui/read-problem";
import { Choice, Search } from "../ui/search";
import { VirtualList } from "../ui/virtual-list";
import { count } from "../logic/text";
import { endsOperation } from "../logic/log";
import { operationKind, operationState } from "../logic/words";
import { chosenOperations, filterOperations, groupOf, statesOf, type Group } from "../logic/filter";
import { refine } from "../state/location";
import { useApp } from "../state/app";
import { useEffect, useRef } from "preact/hooks";
import { useResource } from "../state/resource";
import { useVmNames } from "../state/lists";

const GROUPS: readonly (readonly [Group, string])[] = [
  ["running", "Running"],
  ["queued", "Queue"],
  ["done", "Done"],
];
const KINDS = [
  ["", "all"],
  [operationKind(OperationKind.DELETE_SNAPSHOT), "deletes"],
  [operationKind(OperationKind.CREATE_SNAPSHOT), "new snapshots"],
] as const;
const OUTCOMES = [["", "all"], ...statesOf("done").map((state) => [operationState(state), operationState(state)] as const)] as const;
/** Of those that are done, so many are read; the audit log has the rest. */
const DONE_MOST = 2_000;

type Here = Extract<Route, { page: "operations" }>;

export function OperationsPage({ route }: { route: Here }) {
  const { hub } = useApp();
  const names = useVmNames();
  const group = GROUPS.find(([key]) => key === route.group)?.[0] ?? "running";
  const done = useDone(route.vm, group === "done");
  const open = hub.open.value?.filter((operation) => route.vm === "" || operation.vmId === route.vm);
  const of = (wanted: Group) => (wanted === "done" ? done.data?.items : open?.filter((each) => groupOf(each.state) === wanted));
  const here = of(group);
  // How it ended is a question only to what has ended.
  const choice = { kind: route.kind ?? "", outcome: group === "done" ? (route.outcome ?? "") : "" };
  const shown = filterOperations(chosenOperations(here ?? [], choice), route.q, names);
  const filtered = route.q + choice.kind + choice.outcome !== "";
  return (
    <section class="tall">
      <h1>Operations</h1>
      <nav class="tabs" aria-label="Which operations">
        {GROUPS.map(([key, words]) => (
          <Link key={key} to={{ ...route, group: key }} class={key === group ? "here" : ""}>
            {words} {key !== "done" && of(key) ? <span class="many">{of(key)?.length}</span> : null}
          </Link>
        ))}
      </nav>
      <div class="filters">
        <Search value={route.q} label="Search snapshot, machine, who, reason" onInput={(q) => refine({ ...route, q })} />
        <Choice value={choice.kind} label="Kind" options={KINDS} onChange={(kind) => refine({ ...route, kind })} />
        {group === "done" && <Choice value={choice.outcome} label="Outcome" options={OUTCOMES} onChange={(outcome) => refine({ ...route, outcome })} />}
        {route.vm !== "" && (
          <button type="button" onClick={() => refine({ ...route, vm: "" })}>
            Only of <Name of={names.get(route.vm) ?? route.vm} /> ✕
          </button>
        )}
      </div>
      {group === "done" && <ReadProblem problem={done.problem} onRetry={done.refresh} />}
      {here === undefined && !done.problem && <Loading lines={6} />}
      {here !== undefined && shown.length === 0 && <Nothing group={group} searched={filtered} />}
      {shown.length > 0 && <List operations={shown} names={names} />}
      {group === "done" && done.data && !done.data.complete && <p class="faint">The newest {count(DONE_MOST, "operation")}; earlier ones stand in the audit log.</p>}
    </section>
  );
}

/** Many, so they are read only where they are shown, and again when one has ended. */
function useDone(vmId: string, shown: boolean) {
  const { clients, hub } = useApp();
  const fetch = () =>
    readPages(async (pageToken) => {
      const request = { vmId, states: statesOf("done"), pageSize: PAGE_SIZE, pageToken };
      const page = await clients.operations.listOperations(request);
      return { items: page.operations, next: page.nextPageToken };
    }, DONE_MOST);
  const open = hub.open.value?.map((operation) => operation.id).sort().join(" ");
  const none = async () => undefined;
  const done = useResource(shown ? `done operations ${vmId}` : "done operations not shown", shown ? fetch : none, { events: endsOperation, onVisible: false });
  const before = useRef(open);
  useEffect(() => {
    if (shown && before.current !== open) done.refresh();
    before.current = open;
  }, [open]);
  return done;
}

function List({ operations, names }: { operations: readonly Operation[]; names: ReadonlyMap<string, string> }) {
  return (
    <VirtualList
      items={operations}
      rowHeight={64}
      keyOf={(operation) => operation.id}
      label="Operations"
      row={(operation) => <OperationRow operation={operation} vmName={names.get(operation.vmId) ?? operation.vmId} />}
    />
  );
}

const NOTHING: Record<Group, readonly [string, string]> = {
  running: ["Nothing goes on", "A delete or a new snapshot shows here while it is under way. It goes on whether or not anybody looks."],
  queued: ["Nothing waits", "Operations on one machine go one after the other, and a host or a storage domain takes so many at once. Who waits for its turn shows here, with its place."],
  done: ["Nothing is done yet", "What has ended stays here, with its outcome, what it gave back and how long it took."],
};

function Nothing({ group, searched }: { group: Group; searched: boolean }) {
  const [title, text] = searched ? ["Nothing matches", "Another word, or another tab, may."] : NOTHING[group];
  return (
    <Empty title={title}>
      <p>{text}</p>
    </Empty>
  );
}
