// Which tab watches: the one that was looked at last. It takes the lock from whoever has it, because a browser
// slows tabs that nobody sees.
//
//   waits ─ lock granted ─▶ leads ─ stolen ─▶ waits        (a closed tab gives its lock back by itself)

/** Leads until the signal ends. */
export type Lead = (signal: AbortSignal) => void;

/** Whether one tab can watch for all: not on a page without TLS that is not on loopback. */
export function hasLocks(): boolean {
  return typeof navigator !== "undefined" && navigator.locks !== undefined;
}

/** Starts; returns what ends it. Without locks, each tab watches for itself. */
export function elect(name: string, lead: Lead): () => void {
  const over = new AbortController();
  if (!hasLocks()) {
    lead(over.signal);
    return () => over.abort();
  }
  const { locks } = navigator;
  let leads = false;
  let turn = new AbortController();
  const hold = () => new Promise<void>((done) => over.signal.addEventListener("abort", () => done(), { once: true }));
  const ask = async (steal: boolean): Promise<void> => {
    // One request a tab: who steals no longer stands in the queue.
    turn.abort();
    const mine = new AbortController();
    turn = mine;
    const term = new AbortController();
    let had = false;
    const granted = () => {
      had = true;
      leads = true;
      lead(term.signal);
      return hold();
    };
    try {
      await locks.request(name, steal ? { steal } : { signal: mine.signal }, granted);
    } catch {
      // Stolen by a tab that is looked at, or given up for another request.
    }
    term.abort();
    if (over.signal.aborted || turn !== mine) return;
    leads = !had;
    // Refused without a reason of ours, the lock is of no use here: then this tab watches for itself.
    if (had) void ask(false);
    else lead(over.signal);
  };
  over.signal.addEventListener("abort", () => turn.abort(), { once: true });
  const seen = () => {
    if (document.visibilityState === "visible" && !leads) void ask(true);
  };
  document.addEventListener("visibilitychange", seen, { signal: over.signal });
  void ask(document.visibilityState === "visible");
  return () => over.abort();
}
