// What the pages see of the watch: how fresh it is, each event once, and the operations that are open.

import type { Clients } from "../api/clients";
import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import { byTurn } from "../logic/filter";
import { START, freshness, type Freshness, type Watch } from "./reducer";
import { computed, signal, type ReadonlySignal } from "@preact/signals";
import { elect } from "./leader";
import { feed } from "./feed";
import { followOpen } from "./open";
import { lineOf, type Note } from "./channel";

export interface Hub {
  readonly freshness: ReadonlySignal<Freshness>;
  readonly watch: ReadonlySignal<Watch>;
  /** Grows when everything is to be read again. Apart from `watch`, which changes with each beat. */
  readonly epoch: ReadonlySignal<number>;
  /** `undefined` until they were listed once. */
  readonly open: ReadonlySignal<readonly Operation[] | undefined>;
  onEvent(hear: (event: Event) => void): () => void;
  /** Looks at the open operations now, as after one was begun here. */
  look(): void;
  close(): void;
}

const NAME = "livemerge-watch";

export function createHub(clients: Clients, refused: () => void): Hub {
  const watch = signal<Watch>(START);
  const open = signal<readonly Operation[] | undefined>(undefined);
  const now = signal(Date.now());
  const listeners = new Set<(event: Event) => void>();
  let revision = -1n;
  let leads = false;
  let wanted = false;
  let waken = () => {};
  const wake = () => {
    wanted = true;
    waken();
  };
  /** What was wanted during a look is not lost: the next pause ends at once. */
  const woken = async () => {
    if (!wanted) await new Promise<void>((done) => (waken = done));
    wanted = false;
  };

  const take = (note: Note) => {
    if (note.kind === "hello") {
      if (leads) shareAll();
    } else if (note.kind === "open") {
      open.value = byTurn(note.operations);
    } else {
      watch.value = note.watch;
      now.value = Date.now();
      if (note.event !== undefined) takeEvent(note.event);
    }
  };
  const takeEvent = (event: Event) => {
    // Two tabs may both have watched for a moment: what was told is not told again.
    if (event.revision <= revision) return;
    revision = event.revision;
    for (const hear of listeners) hear(event);
    if (event.operationId !== "") wake();
  };
  const line = lineOf(NAME, take);
  const share = (note: Note) => {
    take(note);
    line.tell(note);
  };
  const shareAll = () => {
    line.tell({ kind: "watch", watch: watch.value, event: undefined });
    if (open.value !== undefined) line.tell({ kind: "open", operations: open.value });
  };

  const resign = elect(NAME, (term) => {
    leads = true;
    term.addEventListener("abort", () => (leads = false), { once: true });
    const listener = { changed: (watch: Watch, event: Event | undefined) => share({ kind: "watch", watch, event }), refused };
    void feed(clients, watch.value, listener, term);
    void followOpen(clients, woken, (operations) => share({ kind: "open", operations }), term);
  });
  line.tell({ kind: "hello" });
  const clock = setInterval(() => (now.value = Date.now()), 1_000);

  return {
    watch,
    open,
    epoch: computed(() => watch.value.epoch),
    freshness: computed(() => freshness(watch.value, now.value)),
    onEvent(hear) {
      listeners.add(hear);
      return () => listeners.delete(hear);
    },
    look: wake,
    close() {
      resign();
      line.close();
      clearInterval(clock);
    },
  };
}
