// What waits, what goes on, what is done.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Route } from "../logic/route";
import { Empty, Loading } from "../ui/empty";
import { Link } from "../ui/link";
import { Name } from "../ui/text";
import { OperationRow } from "../ui/operation-row";
import { PAGE_SIZE, readPages } from "../api/pages";
import { ProblemBox } from "../ui/problem";
import { Search } from "../ui/search";
import { VirtualList } from "../ui/virtual-list";
import { count } from "../logic/text";
import { filterOperations, groupOf, statesOf, type Group } from "../logic/filter";
import { refine } from "../state/location";
import { useApp } from "../state/app";
import { useResource } from "../state/resource";
import { useVmNames } from "../state/lists";

const GROUPS: readonly (readonly [Group, string])[] = [
  ["running", "Running"],
  ["queued", "Queue"],
  ["done", "Done"],
];
/** Of those that are done, so many are read; the audit log has the rest. */
const DONE_MOST = 2_000;

type Here = Extract<Route, { page: "operations" }>;

export function OperationsPage({ route }: { route: Here }) {
  const { clients, hub } = useApp();
  const names = useVmNames();
  const group = GROUPS.find(([key]) => key === route.group)?.[0] ?? "running";
  const fetch = () =>
    readPages(async (pageToken) => {
      const request = { vmId: route.vm, states: statesOf("done"), pageSize: PAGE_SIZE, pageToken };
      const page = await clients.operations.listOperations(request);
      return { items: page.operations, next: page.nextPageToken };
    }, DONE_MOST);
  const done = useResource(`done operations ${route.vm}`, fetch, { events: (event) => event.operationId !== "" });
  const open = hub.open.value?.filter((operation) => route.vm === "" || operation.vmId === route.vm);
  const of = (wanted: Group) => (wanted === "done" ? done.data?.items : open?.filter((each) => groupOf(each.state) === wanted));
  const here = of(group);
  const shown = filterOperations(here ?? [], route.q, names);
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
        {route.vm !== "" && (
          <button type="button" onClick={() => refine({ ...route, vm: "" })}>
            Only of <Name of={names.get(route.vm) ?? route.vm} /> ✕
          </button>
        )}
      </div>
      {group === "done" && done.problem && <ProblemBox problem={done.problem} onRetry={done.refresh} />}
      {here === undefined && !done.problem && <Loading lines={6} />}
      {here !== undefined && shown.length === 0 && <Nothing group={group} searched={route.q !== ""} />}
      {shown.length > 0 && <List operations={shown} names={names} />}
      {group === "done" && done.data && !done.data.complete && <p class="faint">The newest {count(DONE_MOST, "operation")}; earlier ones stand in the audit log.</p>}
    </section>
  );
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
