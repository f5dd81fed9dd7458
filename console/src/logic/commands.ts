// The same by hand: what to type for what this page shows or has done.
//
// The page knows neither the address of the server's gRPC listener nor where a token is kept, so the
// commands take both from the environment: `livemerge` reads LIVEMERGE_SERVER and LIVEMERGE_TOKEN_FILE itself.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import { EventSeverity, EventType } from "../gen/livemerge/v1/event_service_pb";

/** One call, in both forms. */
export interface Commands {
  readonly cli: string;
  readonly grpcurl: string;
}

/** One word of a POSIX shell, whatever stands in it. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/u.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A `livemerge` command of these words. */
export function cli(...words: readonly string[]): string {
  return ["livemerge", ...words].map(quoted).join(" ");
}

type Json = string | number | boolean | readonly Json[] | { readonly [name: string]: Json };

/** A `grpcurl` call; fields that are empty are left out, as in the protocol. */
export function grpcurl(method: string, request: Record<string, Json>): string {
  const set = Object.entries(request).filter(([, value]) => !isUnset(value));
  const data = JSON.stringify(Object.fromEntries(set));
  const token = `-H "authorization: Bearer $(cat "$LIVEMERGE_TOKEN_FILE")"`;
  return `grpcurl ${token} -d ${quoted(data)} "$LIVEMERGE_ADDRESS" livemerge.v1.${method}`;
}

function isUnset(value: Json): boolean {
  if (typeof value === "object") return Object.keys(value).length === 0;
  return value === "" || value === false || value === 0;
}

/** What the audit page shows. */
export interface EventQuestion {
  readonly vm: string;
  readonly operation: string;
  readonly severity: EventSeverity;
  readonly types: readonly EventType[];
}

/** The same events, followed in a terminal. */
export function followEvents({ vm, operation, severity, types }: EventQuestion): Commands {
  const words = ["event", "watch", "--from-start"];
  if (vm) words.push("--vm", vm);
  if (operation) words.push("--operation", operation);
  if (severity) words.push("--severity", EventSeverity[severity].toLowerCase());
  for (const type of types) words.push("--type", EventType[type].toLowerCase());
  const request = {
    vm_id: vm,
    operation_id: operation,
    least_severity: severity ? `EVENT_SEVERITY_${EventSeverity[severity]}` : "",
    types: types.map((type) => `EVENT_TYPE_${EventType[type]}`),
    from_start: true,
  };
  return { cli: cli(...words), grpcurl: grpcurl("EventService/WatchEvents", request) };
}

/** The request that an event tells of, as one of its own: its old id belongs to what was answered then. Or else the look at what it is about. */
export function ofEvent(event: Event, requestId: string): Commands {
  const { vmId, snapshotId, operationId, hostId, details } = event;
  switch (event.type) {
    case EventType.SNAPSHOT_DELETE_REQUESTED:
      return deleteSnapshots({ vm: vmId, snapshots: [snapshotId], requestId });
    case EventType.OPERATION_CANCEL_REQUESTED:
      return {
        cli: cli("operation", "cancel", operationId),
        grpcurl: grpcurl("OperationService/CancelOperation", { operation_id: operationId }),
      };
    case EventType.HOST_MAINTENANCE_CHANGED: {
      const on = details.maintenance === "true" || details.maintenance === "on";
      return {
        cli: cli("host", "maintenance", hostId, on ? "on" : "off"),
        grpcurl: grpcurl("InventoryService/SetHostMaintenance", { request_id: requestId, host_id: hostId, maintenance: on }),
      };
    }
    default:
      return look(event);
  }
}

function look({ operationId, snapshotId, vmId, hostId }: Event): Commands {
  if (operationId) {
    return {
      cli: cli("operation", "get", operationId),
      grpcurl: grpcurl("OperationService/GetOperation", { operation_id: operationId }),
    };
  }
  if (snapshotId) {
    return {
      cli: cli("snapshot", "get", snapshotId),
      grpcurl: grpcurl("SnapshotService/GetSnapshot", { snapshot_id: snapshotId }),
    };
  }
  if (vmId) {
    return { cli: cli("vm", "get", vmId), grpcurl: grpcurl("InventoryService/GetVm", { vm_id: vmId }) };
  }
  if (hostId) {
    return { cli: cli("host", "get", hostId), grpcurl: grpcurl("InventoryService/GetHost", { host_id: hostId }) };
  }
  return { cli: cli("event", "list"), grpcurl: grpcurl("EventService/ListEvents", {}) };
}

/** A delete as the dialog is about to order it. */
export interface DeleteQuestion {
  readonly vm: string;
  readonly snapshots: readonly string[];
  readonly requestId: string;
  /** Of one snapshot: the one that was looked at. */
  readonly etag?: string | undefined;
  readonly direction?: "" | "commit" | "pull";
  readonly bytesPerSecond?: number;
}

export function deleteSnapshots(question: DeleteQuestion): Commands {
  const { vm, snapshots, requestId, etag = "", direction = "", bytesPerSecond = 0 } = question;
  const words = ["snapshot", "delete", ...snapshots, "--vm", vm];
  if (etag) words.push("--etag", etag);
  if (direction) words.push("--direction", direction);
  if (bytesPerSecond > 0) words.push("--bandwidth", String(bytesPerSecond));
  if (requestId) words.push("--request-id", requestId);
  const options: Record<string, Json> = {};
  if (direction) options.direction = `MERGE_DIRECTION_${direction.toUpperCase()}`;
  if (bytesPerSecond > 0) options.bytes_per_second = String(bytesPerSecond);
  const [one] = snapshots;
  const call =
    snapshots.length === 1 && one !== undefined
      ? grpcurl("SnapshotService/DeleteSnapshot", { request_id: requestId, snapshot_id: one, etag, options })
      : grpcurl("SnapshotService/BatchDeleteSnapshots", { request_id: requestId, vm_id: vm, snapshot_ids: snapshots, options });
  return { cli: cli(...words), grpcurl: call };
}
