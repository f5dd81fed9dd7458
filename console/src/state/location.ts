// Where one is, as a signal. The browser's history is the only memory of it.

import { href, parseRoute, type Route } from "../logic/route";
import { signal } from "@preact/signals";

export const route = signal<Route>(parseRoute(window.location.hash));

window.addEventListener("hashchange", () => (route.value = parseRoute(window.location.hash)));

/** A step that the back button takes back. */
export function go(next: Route): void {
  window.location.hash = href(next);
}

/** The same place with another filter: typing does not fill the history. */
export function refine(next: Route): void {
  route.value = next;
  try {
    window.history.replaceState(window.history.state, "", href(next));
  } catch {
    // Browsers bound how often it may be called; the next key stroke writes the address again.
  }
}

/** Another place instead of this one, which the back button then does not lead to. */
export function replace(next: Route): void {
  refine(next);
}
