// Events, each of which opens to all that the log has of it.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import { Badge } from "./badge";
import { CommandBox } from "./copy";
import { Fact } from "./problem";
import { FullTime, Time } from "./time";
import { Link } from "./link";
import { Loading } from "./empty";
import { Name } from "./text";
import { eventWords, severityTone, severityWord } from "../logic/words";
import { REQUEST_NAMES, requestOf } from "../logic/log";
import { freshId } from "../api/request-id";
import { ofEvent } from "../logic/commands";
import { useState } from "preact/hooks";
import { visible } from "../logic/text";

/** More than so many would be slow; the audit page shows them all. */
const MOST = 100;

export function EventList({ events }: { events: readonly Event[] | undefined }) {
  if (events === undefined) return <Loading />;
  if (events.length === 0) return <p class="faint">Nothing yet.</p>;
  return (
    <ol class="events card">
      {events.slice(0, MOST).map((event) => (
        <li key={String(event.revision)}>
          <details>
            <summary>
              <EventLine event={event} />
            </summary>
            <EventDetails event={event} />
          </details>
        </li>
      ))}
    </ol>
  );
}

/** `about` is the machine, where not all events are of one. */
export function EventLine({ event, about = "" }: { event: Event; about?: string }) {
  return (
    <span class="event">
      <Badge tone={severityTone(event.severity)} title={severityWord(event.severity)}>
        {eventWords(event.type)}
      </Badge>
      <bdi class="message">{visible(event.message)}</bdi>
      {about !== "" && (
        <span class="faint about">
          <Name of={about} />
        </span>
      )}
      <span class="faint actor">
        <Name of={event.actor} />
      </span>
      <span class="faint when">
        <Time at={event.occurredAt} />
      </span>
    </span>
  );
}

export function EventDetails({ event }: { event: Event }) {
  const [requestId] = useState(freshId);
  const details = Object.entries(event.details)
    .filter(([name]) => !REQUEST_NAMES.includes(name))
    .sort(([one], [other]) => (one < other ? -1 : 1));
  const request = requestOf(event);
  return (
    <div class="event-details">
      <p dir="auto">{visible(event.message)}</p>
      <dl class="facts">
        <dt>When</dt>
        <dd>
          <FullTime at={event.occurredAt} />
        </dd>
        <dt>Who</dt>
        <dd>{event.actor ? <Name of={event.actor} /> : <span class="faint">LiveMerge itself</span>}</dd>
        {request && <Fact name="request id" value={request} />}
        {event.hostId && <Fact name="host" value={event.hostId} />}
        {event.vmId && (
          <>
            <dt>machine</dt>
            <dd>
              <Link to={{ page: "vm", id: event.vmId }}>
                <code>{event.vmId}</code>
              </Link>
            </dd>
          </>
        )}
        {event.operationId && (
          <>
            <dt>operation</dt>
            <dd>
              <Link to={{ page: "operation", id: event.operationId }}>
                <code>{event.operationId}</code>
              </Link>
            </dd>
          </>
        )}
        {event.snapshotId && <Fact name="snapshot" value={event.snapshotId} />}
        {details.map(([name, value]) => (
          <Fact key={name} name={name} value={value} />
        ))}
        <Fact name="revision" value={String(event.revision)} />
      </dl>
      <CommandBox commands={ofEvent(event, requestId)} />
    </div>
  );
}
