// Whether the server could be reached by the last read. It is said once, over the page, and not by each part of it.

import type { Problem } from "../api/problem";
import { signal } from "@preact/signals";

export const unreachable = signal(false);

/** Of a read that has ended; without a problem it was answered. */
export function heard(problem: Problem | undefined): void {
  unreachable.value = isSaidOnce(problem);
}

export function isSaidOnce(problem: Problem | undefined): boolean {
  return problem?.reason === "SERVER_UNREACHABLE";
}
