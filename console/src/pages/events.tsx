// The audit log, live.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { Route } from "../logic/route";
import { Choice, Search } from "../ui/search";
import { CommandBox } from "../ui/copy";
import { Dialog } from "../ui/dialog";
import { Empty, Loading } from "../ui/empty";
import { EventDetails, EventLine } from "../ui/event-list";
import { Name } from "../ui/text";
import { ReadProblem } from "../ui/read-problem";
import { VirtualList } from "../ui/virtual-list";
import { count, short } from "../logic/text";
import { eventTypes, searched, severityOf, typesOf } from "../logic/log";
import { eventType, eventWords } from "../logic/words";
import { followEvents } from "../logic/commands";
import { refine } from "../state/location";
import { useEvents } from "../state/events";
import { useMemo, useState } from "preact/hooks";
import { useVmNames } from "../state/lists";

const SEVERITIES = [
  ["", "all"],
  ["warning", "warnings and errors"],
  ["error", "errors"],
] as const;
const TYPES = [["", "all"], ...eventTypes().map((type) => [eventType(type).toLowerCase(), eventWords(type)] as const)] as const;

const MISSING = {
  older: "The log is longer than is read here: the oldest events are not shown. Narrow the question, or use the command line.",
  since: "More has happened since this page was opened than is kept here: of that, only the newest events are shown. Open it again, or use the command line.",
} as const;

export function EventsPage({ route }: { route: Extract<Route, { page: "events" }> }) {
  const question = { vm: route.vm, operation: route.operation, severity: severityOf(route.severity), types: typesOf(route.type) };
  const { events, problem, missing, refresh } = useEvents(question);
  const names = useVmNames();
  const [opened, open] = useState<Event>();
  const shown = useMemo(() => searched(events ?? [], route.q), [events, route.q]);
  return (
    <section class="tall">
      <div class="line">
        <h1>Audit log</h1>
        <span class="faint" role="status">
          {events && count(shown.length, "event")}
        </span>
      </div>
      <div class="filters">
        <Search value={route.q} label="Search text, who, ids" onInput={(q) => refine({ ...route, q })} />
        <Choice value={route.severity} label="Severity" options={SEVERITIES} onChange={(severity) => refine({ ...route, severity })} />
        <Choice value={route.type} label="Type" options={TYPES} onChange={(type) => refine({ ...route, type })} />
        {route.vm !== "" && (
          <button type="button" onClick={() => refine({ ...route, vm: "" })}>
            Only of <Name of={names.get(route.vm) ?? short(route.vm)} /> ✕
          </button>
        )}
        {route.operation !== "" && (
          <button type="button" onClick={() => refine({ ...route, operation: "" })}>
            Only of operation {short(route.operation)} ✕
          </button>
        )}
      </div>
      <CommandBox commands={followEvents(question)} summary="Follow these events in a terminal" />
      <ReadProblem problem={problem} onRetry={refresh} />
      {missing !== "" && <p class="note">{MISSING[missing]}</p>}
      {events === undefined && !problem && <Loading lines={8} />}
      {events !== undefined && shown.length === 0 && (
        <Empty title="No event">
          <p>Every request, every step of a merge, every repair and every failure is written here, and nothing is ever taken out. Nothing answers this question yet.</p>
        </Empty>
      )}
      {shown.length > 0 && (
        <VirtualList
          items={shown}
          rowHeight={52}
          keyOf={(event) => String(event.revision)}
          label="Events, newest first"
          row={(event) => (
            <button type="button" class="row" onClick={() => open(event)}>
              <EventLine event={event} about={names.get(event.vmId) ?? event.hostId} />
            </button>
          )}
        />
      )}
      {opened && (
        <Dialog title={eventWords(opened.type)} onClose={() => open(undefined)} wide>
          <EventDetails event={opened} />
        </Dialog>
      )}
    </section>
  );
}
