// What the pages see of the watch: how fresh it is, each event once, and the operations that are open.

import type { Clients } from "../api/clients";
import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import { byTurn } from "../logic/filter";
import { START, freshness, type Freshness, type Watch } from "./reducer";
import { computed, signal, type ReadonlySignal } from "@preact/signals";
import { elect, hasLocks } from "./leader";
import { feed } from "./feed";
import { followOpen } from "./open";
import { NO_LINE, lineOf, type Note } from "./channel";

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
/** Other tabs answer at once, or there are none. */
const ANSWER_MS = 150;

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
      shareAll();
    } else if (note.kind === "open") {
      open.value = byTurn(note.operations);
    } else {
      // Another log, or the same one as it was earlier: its numbers begin again.
      if (note.watch.epoch !== watch.value.epoch) revision = -1n;
      watch.value = note.watch;
      now.value = Date.now();
      if (note.event !== undefined) takeEvent(note.event);
    }
  };
  const hear = (note: Note) => {
    // What leads knows better than an answer to a third tab; an event is news, whoever tells it.
    if (!leads || note.kind === "hello" || (note.kind === "watch" && note.event !== undefined)) take(note);
    if (note.kind === "watch") begin();
  };
  const takeEvent = (event: Event) => {
    // Two tabs may both have watched for a moment: what was told is not told again.
    if (event.revision <= revision) return;
    revision = event.revision;
    for (const hear of listeners) hear(event);
    if (event.operationId !== "") wake();
  };
  // Where every tab leads, what one tells would only overwrite what another knows.
  const line = hasLocks() ? lineOf(NAME, hear) : NO_LINE;
  const share = (note: Note) => {
    take(note);
    line.tell(note);
  };
  const shareAll = () => {
    if (watch.value.token === "") return;
    line.tell({ kind: "watch", watch: watch.value, event: undefined });
    if (open.value !== undefined) line.tell({ kind: "open", operations: open.value });
  };

  const lead = (term: AbortSignal) => {
    leads = true;
    term.addEventListener("abort", () => (leads = false), { once: true });
    const listener = { changed: (watch: Watch, event: Event | undefined) => share({ kind: "watch", watch, event }), refused };
    void feed(clients, watch.value, listener, term);
    void followOpen(clients, woken, (operations) => share({ kind: "open", operations }), term);
  };
  // Who takes over goes on where the others are: it hears them first, whether they lead or not.
  let resign: (() => void) | undefined;
  const begin = () => {
    clearTimeout(unanswered);
    resign ??= elect(NAME, lead);
  };
  const unanswered = setTimeout(() => begin(), line === NO_LINE ? 0 : ANSWER_MS);
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
      clearTimeout(unanswered);
      resign?.();
      line.close();
      clearInterval(clock);
    },
  };
}
