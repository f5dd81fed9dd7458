import { EventType, type Event } from "../gen/livemerge/v1/event_service_pb";
import { Locks } from "./testing";
import { World } from "../scripted/world";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { clientsOf } from "../api/clients";
import { createHub, type Hub } from "./hub";
import { lineOf } from "./channel";
import { START } from "./reducer";
import { transportOf } from "../scripted/transport";

const hubs: Hub[] = [];

class Page extends EventTarget {
  visibilityState = "visible";
}

beforeEach(() => {
  vi.stubGlobal("document", new Page());
  vi.stubGlobal("navigator", { locks: new Locks() });
});

afterEach(() => {
  for (const hub of hubs.splice(0)) hub.close();
  vi.unstubAllGlobals();
});

function open(world: World) {
  const hub = createHub(clientsOf(transportOf(world)), () => undefined);
  hubs.push(hub);
  const events: Event[] = [];
  hub.onEvent((event) => events.push(event));
  return { hub, messages: () => events.map((event) => event.message) };
}

const until = (what: () => boolean) => vi.waitFor(() => expect(what()).toBe(true), { timeout: 5_000, interval: 5 });
const small = () => new World({ vms: 2, snapshots: 3 });
const tell = (world: World, message: string) => world.tell({ type: EventType.HOST_UP, message });

test("a new tab takes over where the others are: no event is missed, and nothing is read again", async () => {
  const world = small();
  const one = open(world);
  await until(() => one.hub.freshness.value === "live");
  const { epoch } = one.hub.watch.value;
  const two = open(world);
  let told = 0;
  const telling = setInterval(() => tell(world, `event ${told++}`), 5);
  await until(() => two.hub.freshness.value === "live");
  await new Promise((done) => setTimeout(done, 300));
  clearInterval(telling);
  const all = Array.from({ length: told }, (_, index) => `event ${index}`);
  await until(() => one.messages().length === told);
  expect(one.messages()).toEqual(all);
  expect([one.hub.epoch.value, two.hub.epoch.value]).toEqual([epoch, epoch]);
});

test("a tab that does not lead answers, too", async () => {
  const notes: string[] = [];
  const world = small();
  const one = open(world);
  await until(() => one.hub.freshness.value === "live");
  const two = open(world);
  await until(() => two.hub.freshness.value === "live");
  await new Promise((done) => setTimeout(done, 50));
  const line = lineOf("livemerge-watch", (note) => notes.push(note.kind));
  line.tell({ kind: "hello" });
  // Sooner than the next beat would come.
  await vi.waitFor(() => expect(notes.filter((kind) => kind === "watch").length).toBeGreaterThanOrEqual(2), { timeout: 1_000 });
  line.close();
});

test("the events of another log are heard, though their numbers are lower", async () => {
  const world = small();
  const one = open(world);
  await until(() => one.hub.freshness.value === "live");
  tell(world, "of the old log");
  await until(() => one.messages().includes("of the old log"));
  // As when the record is put back: the leader begins afresh, and tells.
  const event = { ...(world.events[0] as Event), revision: 1n, message: "of the new log" };
  const line = lineOf("livemerge-watch", () => undefined);
  line.tell({ kind: "watch", watch: { ...START, token: "1", heardAt: Date.now(), epoch: one.hub.watch.value.epoch + 1 }, event });
  await until(() => one.messages().includes("of the new log"));
  line.close();
});

test("without locks each tab is for itself", async () => {
  vi.stubGlobal("navigator", {});
  const world = small();
  const [one, two] = [open(world), open(world)];
  await until(() => one.hub.freshness.value === "live" && two.hub.freshness.value === "live");
  const line = lineOf("livemerge-watch", () => undefined);
  line.tell({ kind: "watch", watch: { ...START, epoch: 9 }, event: undefined });
  await new Promise((done) => setTimeout(done, 50));
  expect(one.hub.epoch.value).not.toBe(9);
  line.close();
});
