// A slider over rates: even steps of the hand are even factors of the rate; its right end is no limit.

import { rate } from "./bytes";

const LEAST = 1024 * 1024;
/** Each step doubles by its third. */
const PER_DOUBLING = 3;
const DOUBLINGS = 12;

/** The place of "no limit". */
export const UNLIMITED = PER_DOUBLING * DOUBLINGS + 1;

/** The limit at a place of the slider, in bytes a second; 0 for none. */
export function limitAt(place: number): number {
  if (place >= UNLIMITED) return 0;
  const mib = 2 ** (Math.max(place, 0) / PER_DOUBLING);
  const whole = mib < 10 ? Math.round(mib * 10) / 10 : Math.round(mib);
  return Math.round(whole * LEAST);
}

/** The place that comes nearest to a limit. */
export function placeOf(limit: number | bigint): number {
  const bytes = Number(limit);
  if (bytes <= 0) return UNLIMITED;
  const place = Math.round(Math.log2(bytes / LEAST) * PER_DOUBLING);
  return Math.min(Math.max(place, 0), UNLIMITED - 1);
}

export function limitWords(limit: number | bigint): string {
  return Number(limit) > 0 ? `at most ${rate(limit)}` : "no limit";
}
