// A change that is asked for again until it is answered. The request id stays the same, so it is done once.

import { mayRepeat, problemOf } from "./problem";

/** How often, and how long between: a person is looking. */
const TRIES = 4;
const PAUSES_MS = [300, 1_000, 2_500] as const;

export type Sleep = (ms: number) => Promise<void>;

const sleep: Sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Calls; again while that may help. Throws the last error as it came. */
export async function mutate<T>(call: () => Promise<T>, pause: Sleep = sleep): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call();
    } catch (thrown) {
      const problem = problemOf(thrown);
      if (!mayRepeat(problem) || attempt >= TRIES) throw thrown;
      const asked = (problem.retryAfter ?? 0) * 1000;
      await pause(Math.min(Math.max(asked, PAUSES_MS[attempt - 1] ?? 0), 5_000));
    }
  }
}
