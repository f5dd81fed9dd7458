// Something that is read from the server, kept while it is read again, and read again when an event says that
// it has changed.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import { comesBack, problemOf, wantsSignIn, type Problem } from "../api/problem";
import { heard } from "./reach";
import { refused, tokenNow } from "../session/session";
import { signal, type Signal } from "@preact/signals";
import { useApp } from "./app";
import { useEffect } from "preact/hooks";

export interface Resource<T> {
  /** The last answer: it stays while a newer one is awaited, and when that fails. */
  readonly data: T | undefined;
  readonly problem: Problem | undefined;
  refresh(): void;
}

interface Entry<T> {
  readonly data: Signal<T | undefined>;
  readonly problem: Signal<Problem | undefined>;
  running: boolean;
  again: boolean;
}

export interface Options {
  /** Events after which it is read again. */
  readonly events?: (event: Event) => boolean;
  /** So often anyway, while the page is seen: not everything that changes is an event. */
  readonly everyMs?: number;
  /** Whether it is read again when somebody comes back to the page; else as here: yes. */
  readonly onVisible?: boolean;
}

/** Answers by question, so that a page that one comes back to is there at once. */
const entries = new Map<string, Entry<unknown>>();
const MOST = 60;
const SETTLE_MS = 150;
const AGAIN_MS = 3_000;

function entryOf<T>(key: string): Entry<T> {
  const known = entries.get(key) as Entry<T> | undefined;
  const entry = known ?? { data: signal<T | undefined>(undefined), problem: signal<Problem | undefined>(undefined), running: false, again: false };
  // The one that was used last stands last.
  entries.delete(key);
  entries.set(key, entry as Entry<unknown>);
  for (const old of entries.keys()) {
    if (entries.size <= MOST) break;
    entries.delete(old);
  }
  return entry;
}

/** Forgets all answers, as when somebody else signs in. */
export function forgetAll(): void {
  entries.clear();
}

async function read<T>(entry: Entry<T>, fetch: () => Promise<T>): Promise<void> {
  // One look at a time; what changed meanwhile is seen by one more.
  if (entry.running) {
    entry.again = true;
    return;
  }
  entry.running = true;
  do {
    entry.again = false;
    const shown = tokenNow();
    try {
      entry.data.value = await fetch();
      entry.problem.value = undefined;
      heard(undefined);
    } catch (thrown) {
      const problem = problemOf(thrown);
      if (wantsSignIn(problem)) refused(problem, shown);
      entry.problem.value = problem;
      heard(problem);
    }
  } while (entry.again);
  entry.running = false;
}

/** `key` tells the question from others: with another key, it is another resource. */
export function useResource<T>(key: string, fetch: () => Promise<T>, { events, everyMs, onVisible = true }: Options = {}): Resource<T> {
  const { hub } = useApp();
  const entry = entryOf<T>(key);
  const epoch = hub.epoch.value;
  const refresh = () => void read(entry, fetch);

  useEffect(() => {
    refresh();
    let settling: ReturnType<typeof setTimeout> | undefined;
    // Events that never end do not put it off for ever.
    const soon = () => {
      settling ??= setTimeout(() => {
        settling = undefined;
        refresh();
      }, SETTLE_MS);
    };
    const deaf = hub.onEvent((event) => {
      if (events?.(event)) soon();
    });
    const seen = () => {
      if (document.visibilityState === "visible") soon();
    };
    const every = everyMs ? setInterval(() => document.visibilityState === "visible" && refresh(), everyMs) : undefined;
    if (onVisible) document.addEventListener("visibilitychange", seen);
    return () => {
      clearTimeout(settling);
      clearInterval(every);
      deaf();
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key, epoch]);

  const problem = entry.problem.value;
  useEffect(() => {
    if (problem === undefined || !comesBack(problem)) return undefined;
    const timer = setTimeout(refresh, Math.max((problem.retryAfter ?? 0) * 1000, AGAIN_MS));
    return () => clearTimeout(timer);
  }, [key, problem]);

  return { data: entry.data.value, problem, refresh };
}
