// One operation, as new as it is known anywhere.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Problem } from "../api/problem";
import { hasEnded, totals } from "../logic/progress";
import { sampled, type Sample } from "../logic/spark";
import { useApp } from "./app";
import { useEffect } from "preact/hooks";
import { useResource } from "./resource";

/** The rates that were seen, by operation: a page that one comes back to goes on with its line. */
const rates = new Map<string, Sample[]>();

export interface Seen {
  readonly operation: Operation | undefined;
  readonly problem: Problem | undefined;
  readonly rates: readonly Sample[];
  refresh(): void;
}

/** What was looked at last; an end is final. */
export function newest(read: Operation | undefined, open: Operation | undefined): Operation | undefined {
  if (read !== undefined && hasEnded(read)) return read;
  if (read !== undefined && open !== undefined && read.revision > open.revision) return read;
  return open ?? read;
}

export function useOperation(id: string): Seen {
  const { clients, hub } = useApp();
  const fetch = async () => (await clients.operations.getOperation({ operationId: id })).operation;
  const { data, problem, refresh } = useResource(`operation ${id}`, fetch, { events: (event) => event.operationId === id });
  const open = hub.open.value?.find((each) => each.id === id);
  const operation = newest(data, open);

  const gone = hub.open.value !== undefined && open === undefined && data !== undefined && !hasEnded(data);
  useEffect(() => {
    // It is open no more, or not yet listed: only the server can say which.
    if (gone) refresh();
  }, [gone, hub.open.value]);

  useEffect(() => {
    if (operation === undefined || hasEnded(operation)) return;
    rates.set(id, sampled(rates.get(id) ?? [], { at: Date.now(), value: totals(operation).rate }));
  }, [operation]);

  return { operation, problem, rates: rates.get(id) ?? [], refresh };
}
