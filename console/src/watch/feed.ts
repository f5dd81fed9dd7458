// Follows the audit log for as long as it is wanted, over restarts of the server.

import type { Clients } from "../api/clients";
import type { Event } from "../gen/livemerge/v1/event_service_pb";
import { BEAT_MS, SILENCE_MS, pauseMs, reduce, type Watch } from "./reducer";
import { problemOf, wantsSignIn } from "../api/problem";

/** What the feed tells. */
export interface FeedListener {
  /** Every change of the watch itself; with the event, when the piece had one. */
  changed(watch: Watch, event: Event | undefined): void;
  /** The token is good no more. */
  refused(): void;
}

/** Runs until `signal` ends it. Begins behind `watch.token`. */
export async function feed(clients: Clients, begin: Watch, listener: FeedListener, signal: AbortSignal): Promise<void> {
  let watch = begin;
  const tell = (next: Watch, event?: Event) => {
    watch = next;
    if (!signal.aborted) listener.changed(watch, event);
  };
  while (!signal.aborted) {
    const silence = new Silence(signal);
    try {
      const request = {
        resumeToken: watch.token,
        heartbeatInterval: { seconds: BigInt(Math.floor(BEAT_MS / 1000)), nanos: 0 },
      };
      for await (const piece of clients.events.watchEvents(request, { signal: silence.signal, timeoutMs: 0 })) {
        silence.broken();
        tell(reduce(watch, { kind: "piece", token: piece.resumeToken, now: Date.now() }), piece.event);
      }
      tell(reduce(watch, { kind: "lost", reason: "STREAM_ENDED" }));
    } catch (thrown) {
      if (signal.aborted) return;
      const problem = problemOf(thrown);
      tell(reduce(watch, { kind: "lost", reason: silence.kept ? "SILENCE" : problem.reason }));
      if (wantsSignIn(problem)) {
        listener.refused();
        return;
      }
    } finally {
      silence.stop();
    }
    await pause(pauseMs(watch.failures, Math.random()), signal);
  }
}

/** Ends a stream that says nothing: a connection can be dead without anybody saying so. */
class Silence {
  readonly #own = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  kept = false;

  constructor(outer: AbortSignal) {
    outer.addEventListener("abort", () => this.#own.abort(), { once: true, signal: this.#own.signal });
    this.broken();
  }

  get signal(): AbortSignal {
    return this.#own.signal;
  }

  broken(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.kept = true;
      this.#own.abort();
    }, SILENCE_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#own.abort();
  }
}

/** Ends early with the signal, and leaves nothing at it: the signal may live as long as the page. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      done();
    };
    const timer = setTimeout(over, ms);
    signal.addEventListener("abort", over);
    if (signal.aborted) over();
  });
}
