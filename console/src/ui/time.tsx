// A time: relative in lists, exact under the pointer; where a thing is shown alone, exact for everybody.

import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { exact, moment, relative } from "../logic/time";
import { signal } from "@preact/signals";

/** One clock for all times of the page. */
export const now = signal(new Date());
setInterval(() => (now.value = new Date()), 5_000);

export function Time({ at, none = "–" }: { at: Timestamp | undefined; none?: string }) {
  const date = moment(at);
  if (date === undefined) return <span class="faint">{none}</span>;
  return (
    <time dateTime={date.toISOString()} title={exact(date)}>
      {relative(date, now.value)}
    </time>
  );
}

/** Both, where there is room. */
export function FullTime({ at, none = "–" }: { at: Timestamp | undefined; none?: string }) {
  const date = moment(at);
  if (date === undefined) return <span class="faint">{none}</span>;
  return (
    <time dateTime={date.toISOString()}>
      {exact(date)} <span class="faint">({relative(date, now.value)})</span>
    </time>
  );
}
