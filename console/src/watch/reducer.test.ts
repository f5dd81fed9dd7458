import { START, STALE_MS, STALE_TRIES, freshness, pauseMs, reduce } from "./reducer";
import { expect, test } from "vitest";

const piece = (token: string, now: number) => ({ kind: "piece", token, now }) as const;
const lost = (reason: string) => ({ kind: "lost", reason }) as const;

test("each piece is where to go on", () => {
  const watch = reduce(reduce(START, piece("a", 1_000)), piece("b", 2_000));
  expect(watch).toMatchObject({ token: "b", heardAt: 2_000, failures: 0 });
});

test("the first piece without a token wants everything read again, a resumed one does not", () => {
  const first = reduce(START, piece("a", 0));
  expect(first.epoch).toBe(1);
  expect(reduce(START, piece("a", 7_000)).epoch).not.toBe(reduce(START, piece("a", 7_001)).epoch);
  const resumed = reduce(reduce(first, lost("UNAVAILABLE")), piece("b", 1));
  expect(resumed.epoch).toBe(1);
});

test("a loss keeps the token and what was heard", () => {
  const watch = reduce(reduce(START, piece("a", 1_000)), lost("SERVER_DRAINING"));
  expect(watch).toMatchObject({ token: "a", heardAt: 1_000, failures: 1, reason: "SERVER_DRAINING" });
  expect(reduce(watch, piece("b", 2_000))).toMatchObject({ failures: 0, reason: "" });
});

test.each(["RESUME_TOKEN_EXPIRED", "RESUME_TOKEN_INVALID"])("%s begins afresh, and everything is read again", (reason) => {
  const gone = reduce(reduce(START, piece("a", 0)), lost(reason));
  expect(gone.token).toBe("");
  expect(reduce(gone, piece("z", 1)).epoch).toBe(2);
});

test("silence is shown as stale, and ends with the next piece", () => {
  const watch = reduce(START, piece("a", 1_000));
  expect(freshness(watch, 1_000 + STALE_MS)).toBe("live");
  expect(freshness(watch, 1_001 + STALE_MS)).toBe("stale");
  expect(freshness(reduce(watch, piece("b", 90_000)), 90_001)).toBe("live");
  expect(freshness(START, 0)).toBe("connecting");
  expect(freshness(reduce(START, lost("UNAVAILABLE")), 0)).toBe("stale");
});

test("tries in vain are shown as stale before the silence is long, a single loss is not", () => {
  let watch = reduce(START, piece("a", 1_000));
  watch = reduce(watch, lost("SERVER_UNREACHABLE"));
  expect(freshness(watch, 1_100)).toBe("live");
  while (watch.failures < STALE_TRIES) watch = reduce(watch, lost("SERVER_UNREACHABLE"));
  expect(freshness(watch, 1_200)).toBe("stale");
});

test("pauses grow to a bound, and are never nothing", () => {
  expect(pauseMs(0, 0)).toBeGreaterThan(0);
  expect(pauseMs(3, 1)).toBeGreaterThan(pauseMs(1, 1));
  expect(pauseMs(50, 1)).toBe(5_000);
});
