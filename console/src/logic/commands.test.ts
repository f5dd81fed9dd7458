import { EventSchema, EventSeverity, EventType } from "../gen/livemerge/v1/event_service_pb";
import { NOTHING_YET, answers, endsOperation, eventTypes, grown, joined, missing, requestOf, searched, severityOf, typesOf } from "./log";
import { cli, deleteSnapshots, followEvents, grpcurl, ofEvent, quoted } from "./commands";
import { create } from "@bufbuild/protobuf";
import { createSnapshot } from "./create-command";
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";

const event = (type: EventType, more: object = {}) => create(EventSchema, { type, vmId: "v", snapshotId: "s", operationId: "o", ...more });

test("a shell takes each word as it was", () => {
  const words = ["plain", "two words", `it's "so"`, "$(reboot)", "`id`", "نسخة", "🚀", "a\nb", "", "!!", "\\"];
  const said = execFileSync("sh", ["-c", `printf '%s\\0' ${words.map(quoted).join(" ")}`]).toString();
  expect(said.split("\0").slice(0, -1)).toEqual(words);
});

test("a call has no fields that are not set", () => {
  expect(grpcurl("S/M", { a: "", b: 0, c: false, d: [], e: {}, f: "x" })).toContain(`-d '{"f":"x"}'`);
  expect(cli("vm", "list")).toBe("livemerge vm list");
});

test("a delete of one and of several", () => {
  const one = deleteSnapshots({ vm: "v", snapshots: ["s"], requestId: "r" });
  expect(one.cli).toBe("livemerge snapshot delete s --vm v --request-id r");
  expect(one.grpcurl).toContain("SnapshotService/DeleteSnapshot");
  const seen = deleteSnapshots({ vm: "v", snapshots: ["s"], requestId: "r", etag: "e7" });
  expect(seen.cli).toContain("--etag e7");
  expect(seen.grpcurl).toContain(`"snapshot_id":"s","etag":"e7"`);
  const several = deleteSnapshots({ vm: "v", snapshots: ["s", "t"], requestId: "r", direction: "pull", bytesPerSecond: 1024 });
  expect(several.cli).toBe("livemerge snapshot delete s t --vm v --direction pull --bandwidth 1024 --request-id r");
  expect(several.grpcurl).toContain(`"options":{"direction":"MERGE_DIRECTION_PULL","bytes_per_second":"1024"}`);
});

test("a name that begins with a dash is no flag", () => {
  const { cli } = createSnapshot({ vm: "v", name: "--all", description: "", labels: { a: "b c" }, deletionProtected: true, quiesce: "required", requestId: "r" });
  expect(cli).toBe(`livemerge snapshot create v --name=--all '--label=a=b c' --protect --quiesce required --request-id r`);
});

test("an event of a request is that request, another one is a look", () => {
  expect(ofEvent(event(EventType.SNAPSHOT_DELETE_REQUESTED, { details: { request_id: "old" } }), "r").cli).toContain("snapshot delete s --vm v --request-id r");
  expect(ofEvent(event(EventType.OPERATION_CANCEL_REQUESTED), "r").cli).toBe("livemerge operation cancel o");
  const maintenance = ofEvent(event(EventType.HOST_MAINTENANCE_CHANGED, { hostId: "h", details: { maintenance: "true", request: "old" } }), "r");
  expect(maintenance.cli).toBe("livemerge host maintenance h on");
  expect(maintenance.grpcurl).toContain(`"request_id":"r"`);
  expect(ofEvent(event(EventType.LIVE_MERGE_STARTED), "r").cli).toBe("livemerge operation get o");
  expect(ofEvent(create(EventSchema, { hostId: "h" }), "r").cli).toBe("livemerge host get h");
  expect(ofEvent(create(EventSchema, {}), "r").cli).toBe("livemerge event list");
});

test("the question of the page is the question of the command", () => {
  const question = { vm: "v", operation: "", severity: EventSeverity.WARNING, types: [EventType.LIVE_MERGE_FAILED] };
  const { cli, grpcurl } = followEvents(question);
  expect(cli).toBe("livemerge event watch --from-start --vm v --severity warning --type live_merge_failed");
  expect(grpcurl).toContain(`"types":["EVENT_TYPE_LIVE_MERGE_FAILED"]`);
});

test("live events are held against the question as the server does", () => {
  const question = { vm: "v", operation: "o", severity: EventSeverity.WARNING, types: [EventType.SNAPSHOT_DELETED] };
  const good = event(EventType.SNAPSHOT_DELETED, { severity: EventSeverity.ERROR });
  expect(answers(good, question)).toBe(true);
  for (const more of [{ vmId: "w" }, { operationId: "p" }, { severity: EventSeverity.INFO }, { type: EventType.HOST_UP }]) {
    expect(answers(create(EventSchema, { ...good, ...more }), question)).toBe(false);
  }
});

test("of what comes the newest are kept, each once, and what is not shown is known", () => {
  const of = (revision: bigint) => create(EventSchema, { revision });
  const live = [3n, 4n, 4n, 5n].map(of).reduce((all, event) => grown(all, event, 2), NOTHING_YET);
  expect(live.events.map((each) => each.revision)).toEqual([4n, 5n]);
  expect(missing({ items: [of(2n)], complete: true }, live)).toBe("since");
  expect(missing({ items: [of(3n)], complete: true }, live)).toBe("");
  expect(missing({ items: [of(3n), of(2n)], complete: true }, live)).toBe("");
  expect(missing({ items: [of(3n)], complete: false }, live)).toBe("older");
  expect(missing({ items: [], complete: true }, NOTHING_YET)).toBe("");
});

test("a list of what is done is read again at an end, not at each step", () => {
  expect(endsOperation(event(EventType.SNAPSHOT_DELETED))).toBe(true);
  expect(endsOperation(event(EventType.VOLUME_REMOVED))).toBe(false);
  expect(endsOperation(event(EventType.SNAPSHOT_DELETED, { operationId: "" }))).toBe(false);
});

test("the id of a request is found by either name", () => {
  expect(requestOf(event(EventType.SNAPSHOT_DELETE_REQUESTED, { details: { request_id: "a" } }))).toBe("a");
  expect(requestOf(event(EventType.HOST_MAINTENANCE_CHANGED, { details: { request: "b" } }))).toBe("b");
  expect(requestOf(event(EventType.HOST_UP))).toBe("");
});

test("what was read and what came is one log, newest first", () => {
  const of = (revision: bigint) => create(EventSchema, { revision });
  expect(joined([of(2n), of(1n)], [of(2n), of(3n)]).map((each) => each.revision)).toEqual([3n, 2n, 1n]);
  expect(searched([event(EventType.HOST_UP, { actor: "token:ann" })], "ANN host up")).toHaveLength(1);
});

test("the words of a route are types and severities", () => {
  expect(typesOf("snapshot_deleted")).toEqual([EventType.SNAPSHOT_DELETED]);
  for (const word of ["", "nothing_such", "3"]) expect(typesOf(word)).toEqual([]);
  expect(severityOf("warning")).toBe(EventSeverity.WARNING);
  expect(severityOf("x")).toBe(EventSeverity.UNSPECIFIED);
  expect(eventTypes()).not.toContain(0);
});
