// A list of which only the rows in sight exist. The keyboard moves through all of them.

import type { ComponentChildren } from "preact";
import { moved, revealed, windowOf } from "../logic/virtual";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props<T> {
  readonly items: readonly T[];
  readonly rowHeight: number;
  readonly keyOf: (item: T) => string;
  readonly label: string;
  readonly row: (item: T, index: number) => ComponentChildren;
}

export function VirtualList<T>({ items, rowHeight, keyOf, label, row }: Props<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [scrollTop, setScrollTop] = useState(0);
  const [height, setHeight] = useState(600);
  const wanted = useRef<number>();

  useEffect(() => {
    const own = box.current;
    if (!own) return undefined;
    const watcher = new ResizeObserver(() => setHeight(own.clientHeight));
    watcher.observe(own);
    setHeight(own.clientHeight);
    return () => watcher.disconnect();
  }, []);

  const view = { count: items.length, rowHeight, scrollTop, height };
  const { first, end, before, after } = windowOf(view);

  useEffect(() => {
    // The row that a key asked for exists only after this render.
    if (wanted.current === undefined) return;
    const link = box.current?.querySelector<HTMLElement>(`[data-index="${wanted.current}"] :is(a, button, input)`);
    if (link) {
      link.focus({ preventScroll: true });
      wanted.current = undefined;
    }
  });

  const onKeyDown = (event: KeyboardEvent) => {
    const target = event.target as HTMLElement;
    const at = target.closest<HTMLElement>("[data-index]")?.dataset.index;
    if (at === undefined) return;
    const page = Math.max(Math.floor(height / rowHeight) - 1, 1);
    const next = moved(event.key, Number(at), items.length, page);
    if (next === undefined || !box.current) return;
    event.preventDefault();
    wanted.current = next;
    box.current.scrollTop = revealed(next, { ...view, scrollTop: box.current.scrollTop });
    setScrollTop(box.current.scrollTop);
  };

  const top = Math.max(before, 0);
  return (
    <div class="virtual" ref={box} tabIndex={-1} onScroll={(event) => setScrollTop(event.currentTarget.scrollTop)} onKeyDown={onKeyDown}>
      <ul aria-label={label} style={{ paddingTop: `${top}px`, paddingBottom: `${after}px` }}>
        {items.slice(first, end).map((item, index) => (
          <li key={keyOf(item)} data-index={first + index} aria-posinset={first + index + 1} aria-setsize={items.length} style={{ height: `${rowHeight}px` }}>
            {row(item, first + index)}
          </li>
        ))}
      </ul>
    </div>
  );
}
