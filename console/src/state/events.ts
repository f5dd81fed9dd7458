// The audit log under a question: what it has, and what comes.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { EventQuestion } from "../logic/commands";
import type { Problem } from "../api/problem";
import { PAGE_SIZE, readPages } from "../api/pages";
import { answers, joined } from "../logic/log";
import { signal } from "@preact/signals";
import { useApp } from "./app";
import { useEffect, useMemo } from "preact/hooks";
import { useResource } from "./resource";

/** The log is read from its beginning, because the API has no other order; beyond this it is not read. */
const MOST = 30_000;

export interface Log {
  /** Newest first. */
  readonly events: readonly Event[] | undefined;
  readonly problem: Problem | undefined;
  /** False when the log is longer than is read here. */
  readonly complete: boolean;
  refresh(): void;
}

export function useEvents(question: EventQuestion): Log {
  const { clients, hub } = useApp();
  const { vm, operation, severity, types } = question;
  const key = `events ${vm} ${operation} ${severity} ${types.join(",")}`;
  const fetch = () =>
    readPages(async (pageToken) => {
      const request = { vmId: vm, operationId: operation, leastSeverity: severity, types: [...types], pageSize: PAGE_SIZE, pageToken };
      const page = await clients.events.listEvents(request);
      return { items: page.events, next: page.nextPageToken };
    }, MOST);
  const { data, problem, refresh } = useResource(key, fetch);
  const live = useMemo(() => signal<readonly Event[]>([]), [key]);
  useEffect(
    () =>
      hub.onEvent((event) => {
        if (answers(event, question)) live.value = [...live.value, event];
      }),
    [key],
  );
  const events = useMemo(() => (data ? joined(data.items, live.value) : undefined), [data, live.value]);
  return { events, problem, complete: data?.complete ?? true, refresh };
}
