import type { ComponentChildren } from "preact";

/** Nothing is here, and why, and what would change that. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2 class="small">{title}</h2>
      {children}
    </div>
  );
}

/** Room for what is being read: as high as it will be, so that nothing jumps. */
export function Loading({ lines = 4, kind = "" }: { lines?: number; kind?: "" | "disk" }) {
  return (
    <div class="loading" role="status">
      <span class="unseen">Loading</span>
      {Array.from({ length: lines }, (_, index) => (
        <div key={index} class={`bone ${kind}`} />
      ))}
    </div>
  );
}
