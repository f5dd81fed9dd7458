/** A bar of what is done, 0 to 1; `undefined` while nobody knows how much there is. */
export function Bar({ done, label }: { done: number | undefined; label: string }) {
  const value = done === undefined ? {} : { value: done };
  return <progress class="bar" max={1} aria-label={label} {...value} />;
}
