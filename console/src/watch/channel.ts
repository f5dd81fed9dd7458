// What the tabs of one browser tell each other. Messages go as bytes: what is cloned is never guessed.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Watch } from "./reducer";
import { EventSchema } from "../gen/livemerge/v1/event_service_pb";
import { OperationSchema } from "../gen/livemerge/v1/operation_pb";
import { fromBinary, toBinary } from "@bufbuild/protobuf";

/** From the tab that watches to the others. */
export type Note =
  | { readonly kind: "watch"; readonly watch: Watch; readonly event: Event | undefined }
  | { readonly kind: "open"; readonly operations: readonly Operation[] }
  /** From a new tab: tell me where you are. */
  | { readonly kind: "hello" };

type Wire =
  | { kind: "watch"; watch: Watch; event: Uint8Array | undefined }
  | { kind: "open"; operations: Uint8Array[] }
  | { kind: "hello" };

export function encode(note: Note): Wire {
  switch (note.kind) {
    case "watch":
      return { ...note, event: note.event && toBinary(EventSchema, note.event) };
    case "open":
      return { kind: "open", operations: note.operations.map((each) => toBinary(OperationSchema, each)) };
    case "hello":
      return note;
  }
}

export function decode(wire: Wire): Note {
  switch (wire.kind) {
    case "watch":
      return { ...wire, event: wire.event && fromBinary(EventSchema, wire.event) };
    case "open":
      return { kind: "open", operations: wire.operations.map((each) => fromBinary(OperationSchema, each)) };
    case "hello":
      return wire;
  }
}

/** A line between tabs. */
export interface Line {
  tell(note: Note): void;
  close(): void;
}

/** Where each tab is for itself. */
export const NO_LINE: Line = { tell: () => undefined, close: () => undefined };

export function lineOf(name: string, hear: (note: Note) => void): Line {
  if (typeof BroadcastChannel === "undefined") return NO_LINE;
  const channel = new BroadcastChannel(name);
  channel.onmessage = (message: MessageEvent<Wire>) => hear(decode(message.data));
  return { tell: (note) => channel.postMessage(encode(note)), close: () => channel.close() };
}
