// A new tab of somebody who is signed in already asks the other tabs for the token. It stays in the memory of
// pages of this origin.

type Note = { readonly kind: "who" } | { readonly kind: "token"; readonly token: string } | { readonly kind: "out" };

const NAME = "livemerge-session";
/** Other tabs answer at once, or there are none. */
const WAIT_MS = 150;

export interface Handover {
  /** The token of another tab; empty when there is none. */
  ask(): Promise<string>;
  /** Signs the other tabs out, too. */
  out(): void;
}

export function handover(token: () => string, signedOut: () => void): Handover {
  if (typeof BroadcastChannel === "undefined") return { ask: () => Promise.resolve(""), out: () => undefined };
  const channel = new BroadcastChannel(NAME);
  let answered: ((token: string) => void) | undefined;
  channel.onmessage = ({ data }: MessageEvent<Note>) => {
    if (data.kind === "who" && token() !== "") channel.postMessage({ kind: "token", token: token() } satisfies Note);
    if (data.kind === "token") answered?.(data.token);
    if (data.kind === "out") signedOut();
  };
  return {
    ask: () =>
      new Promise((done) => {
        answered = done;
        channel.postMessage({ kind: "who" } satisfies Note);
        setTimeout(() => done(""), WAIT_MS);
      }),
    out: () => channel.postMessage({ kind: "out" } satisfies Note),
  };
}
