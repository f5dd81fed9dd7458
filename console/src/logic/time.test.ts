import { exact, moment, relative, seconds, span } from "./time";
import { expect, test } from "vitest";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";

const NOW = new Date("2026-02-01T12:00:00Z");
const at = (away: number) => new Date(NOW.getTime() + away * 1000);

test.each([
  [-3, "just now"],
  [9, "just now"],
  [-45, "45 seconds ago"],
  [-60, "1 minute ago"],
  [-7_200, "2 hours ago"],
  [3_600, "in 1 hour"],
  [-86_400 * 8, "1 week ago"],
  [-86_400 * 800, "2 years ago"],
])("%i s away is %s", (away, words) => expect(relative(at(away), NOW)).toBe(words));

test.each([
  [undefined, "not known"],
  [0, "0 s"],
  [0.032, "0.032 s"],
  [0.25, "0.25 s"],
  [29.4, "29 s"],
  [65, "1 min 05 s"],
  [3_900, "1 h 05 min"],
  [86_400 * 3 + 7_200, "3 d 2 h"],
  [-1, "not known"],
])("%s s long is %s", (length, words) => expect(span(length)).toBe(words));

test("what is unset stays unset, and what is beyond the calendar is none", () => {
  expect(moment(undefined)).toBeUndefined();
  expect(seconds(undefined)).toBeUndefined();
  expect(moment({ ...timestampFromMs(0), seconds: 9_000_000_000_000_000n })).toBeUndefined();
  expect(exact(at(0))).toMatch(/^2026-02-01 \d\d:00:00 [+-]\d\d:\d\d$/u);
});
