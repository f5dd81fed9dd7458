import { EventSchema } from "../gen/livemerge/v1/event_service_pb";
import { OperationSchema } from "../gen/livemerge/v1/operation_pb";
import { START } from "./reducer";
import { create } from "@bufbuild/protobuf";
import { decode, encode, lineOf, type Note } from "./channel";
import { expect, test } from "vitest";

const EVENT = create(EventSchema, { revision: 7n, message: `<b>"نسخة" 🚀`, details: { reason: "VM_DIED" } });

test.each<Note>([
  { kind: "hello" },
  { kind: "watch", watch: { ...START, token: "t", heardAt: 5 }, event: EVENT },
  { kind: "watch", watch: START, event: undefined },
  { kind: "open", operations: [create(OperationSchema, { id: "o", bytesPerSecond: 5n })] },
])("a note arrives as it was sent: $kind", (note) => {
  expect(decode(structuredClone(encode(note)))).toEqual(note);
});

test("tabs hear each other, and not themselves", async () => {
  const heard: Note[] = [];
  const one = lineOf("tabs", () => heard.push({ kind: "hello" }));
  const got = new Promise<Note>((done) => {
    const two = lineOf("tabs", (note) => {
      two.close();
      done(note);
    });
  });
  one.tell({ kind: "watch", watch: START, event: EVENT });
  expect(await got).toMatchObject({ kind: "watch", event: { revision: 7n } });
  one.close();
  expect(heard).toEqual([]);
});
