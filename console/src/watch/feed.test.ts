import { Code, ConnectError } from "@connectrpc/connect";
import { EventType } from "../gen/livemerge/v1/event_service_pb";
import { START, type Watch } from "./reducer";
import { World } from "../scripted/world";
import { clientsOf } from "../api/clients";
import { expect, test, vi } from "vitest";
import { fail } from "../scripted/fail";
import { feed } from "./feed";
import { transportOf } from "../scripted/transport";
import type { Event } from "../gen/livemerge/v1/event_service_pb";

const SMALL = { vms: 3, snapshots: 4 };

/** Follows until `enough` says so. */
async function follow(world: World, begin: Watch, enough: (watch: Watch, events: Event[]) => boolean, broken: (call: number) => ConnectError | undefined = () => undefined) {
  const clients = clientsOf(transportOf(world));
  let calls = 0;
  const tokens: string[] = [];
  const watchEvents: typeof clients.events.watchEvents = (request, options) => {
    calls += 1;
    tokens.push(request.resumeToken ?? "");
    const error = broken(calls);
    const stream = clients.events.watchEvents(request, options);
    if (error === undefined) return stream;
    return (async function* () {
      // What came before the line broke counts.
      for await (const piece of stream) {
        yield piece;
        break;
      }
      throw error;
    })();
  };
  const over = new AbortController();
  const events: Event[] = [];
  let last = begin;
  let refused = false;
  const listener = {
    changed(watch: Watch, event: Event | undefined) {
      last = watch;
      if (event) events.push(event);
      if (enough(watch, events)) over.abort();
    },
    refused: () => (refused = true),
  };
  await feed({ ...clients, events: { ...clients.events, watchEvents } }, begin, listener, over.signal);
  return { events, tokens, last, refused };
}

test("events come once, whatever breaks between", async () => {
  const world = new World(SMALL);
  const tell = () => world.tell({ type: EventType.HOST_UP, message: "up" });
  let seen = 0;
  const { events, tokens } = await follow(
    world,
    START,
    (watch, events) => {
      if (watch.heardAt !== undefined && events.length === seen && seen < 5) {
        seen += 1;
        queueMicrotask(tell);
      }
      return events.length >= 5;
    },
    (call) => (call % 2 === 1 ? fail(Code.Unavailable, "SERVER_DRAINING", "the server is stopping") : undefined),
  );
  const revisions = events.map((event) => event.revision);
  expect(new Set(revisions).size).toBe(revisions.length);
  expect(revisions).toEqual([...revisions].sort((one, other) => Number(one - other)));
  expect(tokens.length).toBeGreaterThan(1);
  expect(tokens.slice(1)).not.toContain("");
});

test("what happened while the line was cut is told from the token on", async () => {
  const world = new World(SMALL);
  const begin: Watch = { ...START, token: String(world.events.length - 3), epoch: 1 };
  const { events, last } = await follow(world, begin, (_, events) => events.length === 3);
  expect(events).toHaveLength(3);
  expect(last.epoch).toBe(1);
});

test("a token that has expired begins afresh", async () => {
  const world = new World(SMALL);
  const begin: Watch = { ...START, token: "5", epoch: 1 };
  let broke = false;
  const { tokens, last } = await follow(
    world,
    begin,
    (watch) => broke && watch.reason === "" && watch.epoch > 1,
    (call) => {
      broke = true;
      return call === 1 ? fail(Code.OutOfRange, "RESUME_TOKEN_EXPIRED", "another log") : undefined;
    },
  );
  expect(tokens).toEqual(["5", ""]);
  expect(last.epoch).toBeGreaterThan(1);
});

test("a token of the caller that is good no more ends the feed and says so", async () => {
  const world = new World(SMALL);
  const { refused } = await follow(world, START, () => false, () => fail(Code.Unauthenticated, "CREDENTIALS_INVALID", "expired"));
  expect(refused).toBe(true);
});

test("a stream that falls silent is given up and opened again", async () => {
  vi.useFakeTimers();
  try {
    const clients = clientsOf(transportOf(new World(SMALL)));
    let calls = 0;
    const watchEvents: typeof clients.events.watchEvents = (_request, options) => {
      calls += 1;
      return (async function* () {
        yield* [];
        await new Promise((_, broken) => options?.signal?.addEventListener("abort", () => broken(new ConnectError("cut", Code.Canceled))));
      })();
    };
    const over = new AbortController();
    const reasons: string[] = [];
    const done = feed({ ...clients, events: { ...clients.events, watchEvents } }, START, { changed: (watch) => reasons.push(watch.reason), refused: () => undefined }, over.signal);
    await vi.advanceTimersByTimeAsync(60_000);
    over.abort();
    await vi.advanceTimersByTimeAsync(10_000);
    await done;
    expect(calls).toBeGreaterThan(1);
    expect(reasons).toContain("SILENCE");
  } finally {
    vi.useRealTimers();
  }
});
