import type { Tone } from "../logic/words";

/** A state as a word with a colour; the word alone says it. */
export function Badge({ tone, children, title }: { tone: Tone; children: string; title?: string }) {
  return (
    <span class={`badge ${tone}`} title={title}>
      {children}
    </span>
  );
}
