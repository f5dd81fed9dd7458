// One call at a time: of what is wanted meanwhile only the last is asked for next.

/** Hands what is wanted to `send`, which must not throw. */
export function latest<T>(send: (wanted: T) => Promise<void>): (wanted: T) => void {
  let running = false;
  let next: { readonly wanted: T } | undefined;
  return (wanted) => {
    next = { wanted };
    if (!running) void run();
  };
  async function run(): Promise<void> {
    running = true;
    while (next !== undefined) {
      const { wanted } = next;
      next = undefined;
      await send(wanted);
    }
    running = false;
  }
}
