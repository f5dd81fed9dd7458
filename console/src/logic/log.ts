// Events under a question, as the server asks it of itself.

import type { Event, EventType } from "../gen/livemerge/v1/event_service_pb";
import type { EventQuestion } from "./commands";
import { EventSeverity, EventType as Types } from "../gen/livemerge/v1/event_service_pb";
import { eventWords } from "./words";
import { folded } from "./text";

/** Whether an event answers the question. */
export function answers(event: Event, { vm, operation, severity, types }: EventQuestion): boolean {
  if (vm !== "" && event.vmId !== vm) return false;
  if (operation !== "" && event.operationId !== operation) return false;
  if (event.severity < severity) return false;
  return types.length === 0 || types.includes(event.type);
}

/** What has come since the log was read. */
export interface Live {
  readonly events: readonly Event[];
  /** The youngest that is kept no more; 0 while all are. */
  readonly lost: bigint;
}

export const NOTHING_YET: Live = { events: [], lost: 0n };

/** With one more, of which `most` are kept. */
export function grown({ events, lost }: Live, event: Event, most: number): Live {
  if (event.revision <= (events.at(-1)?.revision ?? lost)) return { events, lost };
  const over = events.length + 1 > most ? events[0] : undefined;
  return over ? { events: [...events.slice(1), event], lost: over.revision } : { events: [...events, event], lost };
}

/** What is not there: older ones than were read, ones between the two, or nothing. */
export type Missing = "" | "older" | "since";

export function missing(read: { readonly items: readonly Event[]; readonly complete: boolean }, { lost }: Live): Missing {
  if (lost > (read.items[0]?.revision ?? 0n)) return "since";
  return read.complete ? "" : "older";
}

/** Both, each event once, the newest first, as they are read. */
export function joined(read: readonly Event[], live: readonly Event[]): Event[] {
  const newest = read[0]?.revision ?? -1n;
  const fresh = live.filter((event) => event.revision > newest);
  return [...fresh.reverse(), ...read];
}

/** What the detail that holds a request's id is called: the log has both. */
export const REQUEST_NAMES: readonly string[] = ["request_id", "request"];

/** The id of the request that an event tells of; empty when it tells of none. */
export function requestOf({ details }: Event): string {
  return REQUEST_NAMES.flatMap((name) => details[name] ?? [])[0] ?? "";
}

const ENDS: ReadonlySet<EventType> = new Set([
  Types.SNAPSHOT_CREATED,
  Types.SNAPSHOT_CREATE_FAILED,
  Types.SNAPSHOT_DELETED,
  Types.SNAPSHOT_DELETE_FAILED,
  Types.LIVE_MERGE_FAILED,
  Types.OPERATION_CANCELLED,
]);

/** Whether an operation may have ended with it; most events of an operation are of its way. */
export function endsOperation(event: Event): boolean {
  return event.operationId !== "" && ENDS.has(event.type);
}

/** What is searched in an event. */
export function searched(events: readonly Event[], q: string): readonly Event[] {
  const words = folded(q).split(/\s+/u).filter(Boolean);
  if (words.length === 0) return events;
  return events.filter((event) => {
    const { message, actor, vmId, snapshotId, operationId, hostId, details } = event;
    const parts = [eventWords(event.type), message, actor, vmId, snapshotId, operationId, hostId, ...Object.values(details)];
    const text = folded(parts.join(" "));
    return words.every((word) => text.includes(word));
  });
}

/** All types by their number's order, without "not known". */
export function eventTypes(): EventType[] {
  const numbers = Object.values(Types).filter((value): value is EventType => typeof value === "number" && value !== 0);
  return numbers.sort((one, other) => one - other);
}

/** The severity of a route's word; 0 for all. */
export function severityOf(word: string): EventSeverity {
  switch (word) {
    case "info":
      return EventSeverity.INFO;
    case "warning":
      return EventSeverity.WARNING;
    case "error":
      return EventSeverity.ERROR;
    default:
      return EventSeverity.UNSPECIFIED;
  }
}

/** The type of a route's word, such as `snapshot_deleted`. */
export function typesOf(word: string): EventType[] {
  const found = (Types as unknown as Record<string, EventType | undefined>)[word.toUpperCase()];
  return found === undefined || word === "" || /^\d/u.test(word) ? [] : [found];
}
