// Times: relative for the eye, exact for the record.

import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

/** The moment, if there is one. */
export function moment(at: Timestamp | undefined): Date | undefined {
  if (at === undefined) return undefined;
  const date = new Date(Number(at.seconds) * 1000 + Math.floor(at.nanos / 1e6));
  return Number.isNaN(date.getTime()) ? undefined : date;
}

/** A duration in seconds; `undefined` stays what it is: not known. */
export function seconds(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Number(duration.seconds) + duration.nanos / 1e9;
}

/** `2026-01-31 12:00:05 +01:00`: sorts, and means one moment only. */
export function exact(at: Date): string {
  const pad = (value: number) => String(value).padStart(2, "0");
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  const east = -at.getTimezoneOffset();
  const zone = `${east < 0 ? "-" : "+"}${pad(Math.floor(Math.abs(east) / 60))}:${pad(Math.abs(east) % 60)}`;
  return `${day} ${time} ${zone}`;
}

const STEPS: readonly (readonly [number, string])[] = [
  [86_400 * 365, "year"],
  [86_400 * 30, "month"],
  [86_400 * 7, "week"],
  [86_400, "day"],
  [3_600, "hour"],
  [60, "minute"],
];

/** `3 minutes ago`, `in 2 hours`. Clocks that differ by a second or two do not make a future. */
export function relative(at: Date, now: Date): string {
  const away = Math.round((at.getTime() - now.getTime()) / 1000);
  const size = Math.abs(away);
  if (size < 10) return "just now";
  let text = `${size} seconds`;
  for (const [length, unit] of STEPS) {
    if (size >= length) {
      const count = Math.floor(size / length);
      text = `${count} ${unit}${count === 1 ? "" : "s"}`;
      break;
    }
  }
  return away < 0 ? `${text} ago` : `in ${text}`;
}

/** `1 h 05 min`, `29 s`, `0.25 s`. */
export function span(length: number | undefined): string {
  if (length === undefined || !Number.isFinite(length) || length < 0) return "not known";
  if (length < 1) return length === 0 ? "0 s" : `${Math.max(length, 0.001).toFixed(length < 0.1 ? 3 : 2)} s`;
  const whole = Math.round(length);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
