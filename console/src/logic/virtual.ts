// Which rows of a long list are there at all.

/** What is to be known of the list. */
export interface View {
  readonly count: number;
  readonly rowHeight: number;
  readonly scrollTop: number;
  readonly height: number;
  /** Rows beyond the edge, so that a flick shows no gap. */
  readonly overscan?: number;
}

/** Rows `first` to before `end`, and the room of the rest. */
export interface Window {
  readonly first: number;
  readonly end: number;
  readonly before: number;
  readonly after: number;
}

export function windowOf({ count, rowHeight, scrollTop, height, overscan = 8 }: View): Window {
  if (count <= 0 || rowHeight <= 0) return { first: 0, end: 0, before: 0, after: 0 };
  const top = Math.min(Math.max(scrollTop, 0), Math.max(count * rowHeight - height, 0));
  const first = Math.max(Math.floor(top / rowHeight) - overscan, 0);
  const end = Math.min(Math.ceil((top + Math.max(height, 0)) / rowHeight) + overscan, count);
  return { first, end, before: first * rowHeight, after: (count - end) * rowHeight };
}

/** Where to scroll so that a row is seen; the present place when it is already. */
export function revealed(index: number, { rowHeight, scrollTop, height }: View): number {
  const top = index * rowHeight;
  if (top < scrollTop) return top;
  if (top + rowHeight > scrollTop + height) return top + rowHeight - height;
  return scrollTop;
}

/** The row that a key moves to. */
export function moved(key: string, index: number, count: number, page: number): number | undefined {
  const last = count - 1;
  const bounded = (wanted: number) => Math.min(Math.max(wanted, 0), last);
  if (last < 0) return undefined;
  switch (key) {
    case "ArrowDown":
      return bounded(index + 1);
    case "ArrowUp":
      return bounded(index - 1);
    case "PageDown":
      return bounded(index + page);
    case "PageUp":
      return bounded(index - page);
    case "Home":
      return 0;
    case "End":
      return last;
    default:
      return undefined;
  }
}
