// Stand-ins of what browsers have, for tests.

/** Locks as browsers have them, as far as they are used here: a queue, and a way past it. */
export class Locks {
  #holder: { reject: (error: Error) => void } | undefined;
  readonly queue: (() => void)[] = [];

  request(_name: string, options: LockOptions, granted: () => Promise<void>): Promise<void> {
    return new Promise((done, reject) => {
      const take = () => {
        const mine = { reject };
        this.#holder = mine;
        void granted().then(() => {
          if (this.#holder !== mine) return;
          this.#holder = undefined;
          done();
          this.queue.shift()?.();
        });
      };
      if (options.steal) {
        this.#holder?.reject(new Error("stolen"));
        take();
      } else if (this.#holder === undefined) {
        take();
      } else {
        this.queue.push(take);
        options.signal?.addEventListener("abort", () => {
          const at = this.queue.indexOf(take);
          if (at >= 0) this.queue.splice(at, 1);
          reject(new Error("aborted"));
        });
      }
    });
  }
}
