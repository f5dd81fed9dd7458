import { UNLIMITED, limitAt, limitWords, placeOf } from "./bandwidth";
import { adviceFor, dataAfter } from "./reasons";
import { descriptionProblem, nameProblem, parseLabels, writeLabels } from "./validate";
import { expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { snapshotOf } from "../testing";
import { typedRight } from "./protection";

test.each(["a", "before upgrade", `<img src=x onerror="alert(1)">`, "نسخة", "🚀".repeat(128), "--all"])("%s is a name", (name) => expect(nameProblem(name)).toBe(""));
test.each(["", " a", "a ", "a\u0000b", "a\nb", "x".repeat(129), "\u00a0a"])("%j is none", (name) => expect(nameProblem(name)).not.toBe(""));

test("a description may have lines, and no other control", () => {
  expect(descriptionProblem("a\nb")).toBe("");
  expect(descriptionProblem("a\u0007")).not.toBe("");
  expect(descriptionProblem("x".repeat(1025))).not.toBe("");
});

test("labels are lines, there and back", () => {
  const { labels, problem } = parseLabels(" tier=daily \n\n by=a=b");
  expect(problem).toBe("");
  expect(labels).toEqual({ tier: "daily", by: "a=b" });
  expect(parseLabels(writeLabels(labels)).labels).toEqual(labels);
  for (const wrong of ["noequals", "Upper=x", "=x", "a=1\na=2", `a=${"x".repeat(257)}`, Array.from({ length: 33 }, (_, n) => `k${n}=v`).join("\n")]) {
    expect(parseLabels(wrong).problem).not.toBe("");
  }
});

test("a label that is named as what objects have is one like any other", () => {
  expect(parseLabels("constructor=x").problem).toBe("");
});

test("the slider leads from 1 MiB a second to no limit, and back to its place", () => {
  expect(limitAt(0)).toBe(1024 * 1024);
  expect(limitAt(UNLIMITED)).toBe(0);
  expect(placeOf(0n)).toBe(UNLIMITED);
  for (let place = 0; place <= UNLIMITED; place += 1) expect(placeOf(limitAt(place))).toBe(place);
  expect(placeOf(1)).toBe(0);
  expect(limitWords(0n)).toBe("no limit");
  expect(limitWords(2 * 1024 * 1024)).toBe("at most 2.00 MiB/s");
});

test("only what is protected asks for its name", () => {
  const [locked, other] = [snapshotOf("Café", "v"), snapshotOf("b", "w")];
  const typed = (name: string) => ({ [locked.id]: name });
  expect(typedRight({}, [])).toBe(true);
  expect(typedRight({}, [locked])).toBe(false);
  expect(typedRight(typed("cafe"), [locked])).toBe(false);
  expect(typedRight(typed("Cafe\u0301"), [locked])).toBe(true);
  expect(typedRight(typed("Café"), [locked, other])).toBe(false);
  expect(typedRight({ ...typed("Café"), [other.id]: "b" }, [locked, other])).toBe(true);
});

test("every reason of the closed list has an advice", () => {
  const list = readFileSync(new URL("../../../docs/errors.md", import.meta.url), "utf8");
  const reasons = [...list.matchAll(/^\| `([A-Z_]+)` \|/gmu)].map(([, reason]) => reason ?? "");
  expect(reasons.length).toBeGreaterThan(40);
  expect(reasons.filter((reason) => adviceFor(reason) === "")).toEqual([]);
});

test("what cannot be told is not called safe", () => {
  expect(dataAfter("VM_DIED")).toContain("safe");
  for (const reason of ["CHAIN_LACKS_DATA", "CHAIN_DIVERGED", "INTERNAL_BUG", "A_REASON_OF_TOMORROW", ""]) expect(dataAfter(reason)).not.toContain("safe");
  expect(dataAfter("A_REASON_OF_TOMORROW")).not.toContain("removed");
});
