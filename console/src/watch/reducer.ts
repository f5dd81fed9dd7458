// The audit log's watch as a state that pieces, losses and time change. No clock, no call.
//
//   connecting ─ piece ─▶ live ─ silence, tries in vain ─▶ stale (shown; the stream may still come back)
//       ▲                   │
//       └──── pause ◀───────┴─ end, error        an expired token: afresh, and everything is read again

/** Beats come every few seconds: after so long without one, what is shown may be old. */
export const STALE_MS = 12_000;
/** Tries in vain after which it is so, too. A server that is restarted is back before that. */
export const STALE_TRIES = 4;
/** How often the server is asked to say that it is there. */
export const BEAT_MS = 4_000;
/** A stream that says nothing for so long is given up. */
export const SILENCE_MS = 20_000;

export interface Watch {
  /** Behind the last piece; empty: from now on. */
  readonly token: string;
  /** When the last piece came, in milliseconds; `undefined` before the first. */
  readonly heardAt: number | undefined;
  /** Tries since the last piece. */
  readonly failures: number;
  /** Grows when everything that was read may be out of date, whatever the events say. No two tabs begin the same one. */
  readonly epoch: number;
  /** The reason of the last loss; empty while the stream is there. */
  readonly reason: string;
}

export const START: Watch = { token: "", heardAt: undefined, failures: 0, epoch: 0, reason: "" };

/** What happened to the stream. */
export type Happening =
  | { readonly kind: "piece"; readonly token: string; readonly now: number }
  | { readonly kind: "lost"; readonly reason: string };

/** Tokens that lead nowhere any more: what lies between cannot be told. */
const AFRESH: ReadonlySet<string> = new Set(["RESUME_TOKEN_EXPIRED", "RESUME_TOKEN_INVALID"]);

export function reduce(watch: Watch, happening: Happening): Watch {
  if (happening.kind === "piece") {
    // Without a token nobody knows what happened before the first piece.
    const first = watch.token === "";
    return {
      token: happening.token || watch.token,
      heardAt: happening.now,
      failures: 0,
      epoch: first ? Math.max(watch.epoch + 1, happening.now) : watch.epoch,
      reason: "",
    };
  }
  const afresh = AFRESH.has(happening.reason);
  return {
    ...watch,
    token: afresh ? "" : watch.token,
    failures: watch.failures + 1,
    reason: happening.reason,
  };
}

/** What a person is told of it. */
export type Freshness = "connecting" | "live" | "stale";

export function freshness(watch: Watch, now: number): Freshness {
  if (watch.heardAt === undefined) return watch.failures === 0 ? "connecting" : "stale";
  return now - watch.heardAt > STALE_MS || watch.failures >= STALE_TRIES ? "stale" : "live";
}

/** The pause before the next try, in milliseconds; `chance` is 0 to 1, so that tabs do not come all at once. */
export function pauseMs(failures: number, chance: number): number {
  const whole = Math.min(250 * 2 ** Math.min(failures, 10), 5_000);
  return whole / 2 + (whole / 2) * chance;
}
