// Where one is, as a signal. The browser's history is the only memory of it.

import { href, parseRoute, type Route } from "../logic/route";
import { signal } from "@preact/signals";

export const route = signal<Route>(parseRoute(window.location.hash));

/** What is written at each step of the history: where it was taken from. */
interface Mark {
  readonly from: string;
}

function mark(from: string): void {
  try {
    window.history.replaceState({ from } satisfies Mark, "");
  } catch {
    // Browsers bound how often it may be called; then this step is one that is not known.
  }
}

let here = window.location.hash;
let leaving = false;

window.addEventListener("hashchange", () => {
  leaving = false;
  // A step that bears no mark is a new one; one that is gone back to has its own.
  if (window.history.state === null) mark(here);
  here = window.location.hash;
  route.value = parseRoute(here);
});

// Where the page begins there is nothing of it to go back to.
if (window.history.state === null) mark("");

/** A step that the back button takes back. */
export function go(next: Route): void {
  window.location.hash = href(next);
}

/** The same place with another filter: typing does not fill the history. */
export function refine(next: Route): void {
  route.value = next;
  try {
    window.history.replaceState(window.history.state, "", href(next));
    here = href(next);
  } catch {
    // Browsers bound how often it may be called; the next key stroke writes the address again.
  }
}

/** Another place instead of this one, which the back button then does not lead to. */
export function replace(next: Route): void {
  refine(next);
}

/** Leaves what was opened over a place: a step back, when that leads there, so that none is left that does nothing. */
export function close(to: Route): void {
  if (leaving) return;
  if ((window.history.state as Partial<Mark> | null)?.from !== href(to)) return replace(to);
  leaving = true;
  window.history.back();
}
