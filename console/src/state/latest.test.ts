import { expect, test } from "vitest";
import { latest } from "./latest";

test("one at a time, and of those that wait only the last", async () => {
  const sent: number[] = [];
  const ends: (() => void)[] = [];
  const want = latest<number>((wanted) => {
    sent.push(wanted);
    return new Promise((done) => ends.push(done));
  });
  const end = async () => {
    ends.shift()?.();
    await new Promise((done) => setTimeout(done));
  };
  for (const wanted of [1, 2, 3]) want(wanted);
  expect(sent).toEqual([1]);
  await end();
  expect(sent).toEqual([1, 3]);
  await end();
  expect(ends).toEqual([]);
  want(4);
  expect(sent).toEqual([1, 3, 4]);
});
