// The audit log under a question: what it has, and what comes.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { EventQuestion } from "../logic/commands";
import type { Problem } from "../api/problem";
import { PAGE_SIZE, readPages } from "../api/pages";
import { NOTHING_YET, answers, grown, joined, missing, type Live, type Missing } from "../logic/log";
import { signal } from "@preact/signals";
import { useApp } from "./app";
import { useEffect, useMemo } from "preact/hooks";
import { useResource } from "./resource";

/** So many of the newest are read. */
const MOST = 10_000;
/** Of what comes while one looks, so many of the newest are kept. */
const MOST_LIVE = 2_000;

export interface Log {
  /** Newest first. */
  readonly events: readonly Event[] | undefined;
  readonly problem: Problem | undefined;
  /** What is not among them: the oldest, or some of since the page was opened. */
  readonly missing: Missing;
  refresh(): void;
}

export function useEvents(question: EventQuestion): Log {
  const { clients, hub } = useApp();
  const { vm, operation, severity, types } = question;
  const key = `events ${vm} ${operation} ${severity} ${types.join(",")}`;
  const fetch = () =>
    readPages(async (pageToken) => {
      const request = { vmId: vm, operationId: operation, leastSeverity: severity, types: [...types], pageSize: PAGE_SIZE, pageToken, newestFirst: true };
      const page = await clients.events.listEvents(request);
      return { items: page.events, next: page.nextPageToken };
    }, MOST);
  // What happens while nobody looks is told, too: coming back is no reason to read it all again.
  const { data, problem, refresh } = useResource(key, fetch, { onVisible: false });
  // Another epoch may be another log: it is read again, and what came of the old one is none of it.
  const epoch = hub.epoch.value;
  const live = useMemo(() => signal<Live>(NOTHING_YET), [key, epoch]);
  useEffect(
    () =>
      hub.onEvent((event) => {
        if (answers(event, question)) live.value = grown(live.value, event, MOST_LIVE);
      }),
    [live],
  );
  const events = useMemo(() => (data ? joined(data.items, live.value.events) : undefined), [data, live.value]);
  return { events, problem, missing: data ? missing(data, live.value) : "", refresh };
}
