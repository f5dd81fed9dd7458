// A new tab of somebody who is signed in already asks the other tabs for the token. It stays in the memory of
// pages of this origin, and is kept over a reload where the tab that had it keeps it.

/** A token, and whether a tab keeps it. */
export interface Held {
  readonly token: string;
  readonly keep: boolean;
}

type Note = { readonly kind: "who" } | ({ readonly kind: "token" } & Held) | { readonly kind: "out" };

const NAME = "livemerge-session";
/** Other tabs answer at once, or there are none. */
const WAIT_MS = 150;
const NONE: Held = { token: "", keep: false };

export interface Handover {
  /** What another tab holds; an empty token when there is none. */
  ask(): Promise<Held>;
  /** Signs the other tabs out, too. */
  out(): void;
  close(): void;
}

export function handover(held: () => Held, signedOut: () => void): Handover {
  if (typeof BroadcastChannel === "undefined") return { ask: () => Promise.resolve(NONE), out: () => undefined, close: () => undefined };
  const channel = new BroadcastChannel(NAME);
  let answered: ((held: Held) => void) | undefined;
  channel.onmessage = ({ data }: MessageEvent<Note>) => {
    if (data.kind === "who" && held().token !== "") channel.postMessage({ kind: "token", ...held() } satisfies Note);
    if (data.kind === "token") answered?.({ token: data.token, keep: data.keep });
    if (data.kind === "out") signedOut();
  };
  return {
    ask: () =>
      new Promise((done) => {
        answered = done;
        channel.postMessage({ kind: "who" } satisfies Note);
        setTimeout(() => done(NONE), WAIT_MS);
      }),
    out: () => channel.postMessage({ kind: "out" } satisfies Note),
    close: () => channel.close(),
  };
}
