import { afterEach, expect, test, vi } from "vitest";
import { Locks } from "./testing";
import { elect } from "./leader";

/** A tab that is seen or not. */
class Tab extends EventTarget {
  visibilityState = "hidden";
  show(seen: boolean) {
    this.visibilityState = seen ? "visible" : "hidden";
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

function open(tab: Tab) {
  vi.stubGlobal("document", tab);
  const terms: AbortSignal[] = [];
  const resign = elect("watch", (term) => terms.push(term));
  return { tab, resign, leads: () => terms.some((term) => !term.aborted), terms };
}

/** `document` is the tab's own while its listener runs. */
async function show(page: ReturnType<typeof open>, seen: boolean) {
  vi.stubGlobal("document", page.tab);
  page.tab.show(seen);
  await new Promise((done) => setTimeout(done));
}

afterEach(() => vi.unstubAllGlobals());

test("one tab watches: the one that was looked at last", async () => {
  const locks = new Locks();
  vi.stubGlobal("navigator", { locks });
  const one = open(new Tab());
  const two = open(new Tab());
  await show(one, false);
  expect([one.leads(), two.leads()]).toEqual([true, false]);
  await show(two, true);
  expect([one.leads(), two.leads()]).toEqual([false, true]);
  await show(one, true);
  expect([one.leads(), two.leads()]).toEqual([true, false]);
  for (let turn = 0; turn < 5; turn += 1) {
    await show(two, true);
    await show(one, true);
  }
  // Nobody stands in the queue twice, however often it went to and fro.
  expect(locks.queue).toHaveLength(1);
  one.resign();
  await new Promise((done) => setTimeout(done));
  expect(two.leads()).toBe(true);
  two.resign();
});

test("where locks are refused each tab watches for itself, too", async () => {
  vi.stubGlobal("navigator", { locks: { request: () => Promise.reject(new Error("not here")) } });
  const one = open(new Tab());
  await show(one, true);
  expect(one.terms.filter((term) => !term.aborted)).toHaveLength(1);
  one.resign();
  expect(one.leads()).toBe(false);
});

test("without locks each tab watches for itself, to its end", () => {
  vi.stubGlobal("navigator", {});
  const one = open(new Tab());
  expect(one.leads()).toBe(true);
  one.resign();
});
