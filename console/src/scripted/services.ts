// The four services over a world.

import type { ConnectRouter } from "@connectrpc/connect";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { MergeOptions, Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { World } from "./world";
import { Code } from "@connectrpc/connect";
import { EventService, EventType } from "../gen/livemerge/v1/event_service_pb";
import { FindingKind, FindingSeverity, Repair, RepairOutcome } from "../gen/livemerge/v1/consistency_pb";
import { HostStatus, InventoryService } from "../gen/livemerge/v1/inventory_service_pb";
import { OperationKind, OperationSchema, OperationState } from "../gen/livemerge/v1/operation_pb";
import { OperationService } from "../gen/livemerge/v1/operation_service_pb";
import { SnapshotOrigin, SnapshotSchema, SnapshotService, SnapshotState } from "../gen/livemerge/v1/snapshot_service_pb";
import { answers } from "../logic/log";
import { badField, fail, missing } from "./fail";
import { begin } from "./merge";
import { cancelRefusal } from "../logic/progress";
import { create } from "@bufbuild/protobuf";
import { idOf } from "./world";
import { page } from "./page";
import { planOf } from "./plan";
import { watch } from "./watch";

/** What is asked of the caller. */
export interface Door {
  /** The tokens that are known, and whether they may change things; nobody is asked when it is empty. */
  readonly tokens: ReadonlyMap<string, "viewer" | "operator">;
}

const CHANGES = new Set(["CreateSnapshot", "DeleteSnapshot", "BatchDeleteSnapshots", "UpdateSnapshot", "CancelOperation", "UpdateOperation", "SetHostMaintenance", "RestoreVolume", "ApplyRepair"]);

/** As the server's gate: who, then what, and only then whether it makes sense. */
export function admit(door: Door, method: string, authorization: string | null): void {
  if (door.tokens.size === 0) return;
  if (!authorization) throw fail(Code.Unauthenticated, "CREDENTIALS_MISSING", "neither a certificate nor a token was shown");
  const role = door.tokens.get(authorization.replace("Bearer ", ""));
  if (role === undefined) throw fail(Code.Unauthenticated, "CREDENTIALS_INVALID", "the token is not known");
  if (role === "viewer" && CHANGES.has(method)) throw fail(Code.PermissionDenied, "METHOD_NOT_PERMITTED", "the caller has no role for this", { method });
}

function found(world: World, id: string): Snapshot {
  const snapshot = world.snapshot(id);
  if (!snapshot) throw missing("SNAPSHOT");
  return snapshot;
}

function operationOf(world: World, id: string): Operation {
  if (id === "") throw badField("operation_id", "must be a UUID");
  const operation = world.operations.find((each) => each.id === id);
  if (!operation) throw missing("OPERATION");
  return operation;
}

/** One request id is one payload, of which the etag and the options are a part. */
function remove(world: World, ids: readonly string[], requestId: string, options: Partial<MergeOptions> = {}, etag = "") {
  const payload = JSON.stringify([ids, etag, options.direction ?? 0, String(options.bytesPerSecond ?? 0n)]);
  const earlier = world.operations.find((operation) => operation.requestId === requestId);
  if (earlier && world.requests.get(requestId) !== payload) throw fail(Code.AlreadyExists, "REQUEST_ID_REUSED", "the request id was used with another payload");
  if (earlier) return { operation: earlier };
  const chosen = ids.map((id) => found(world, id));
  const [blocker] = planOf(world, chosen, options).blockers;
  if (blocker) throw fail(Code.FailedPrecondition, blocker.reason, blocker.message);
  world.requests.set(requestId, payload);
  return { operation: begin(world, chosen, { ...options, requestId }) };
}

export function services(world: World) {
  return (router: ConnectRouter) => {
    router.service(SnapshotService, {
      getSnapshot: ({ snapshotId }) => ({ snapshot: found(world, snapshotId) }),
      listSnapshots: ({ vmId, pageSize, pageToken }) => {
        const all = vmId === "-" ? [...world.snapshots.values()].flat() : world.snapshotsOf(vmId);
        const { items, nextPageToken } = page(all, pageSize, pageToken);
        return { snapshots: items, nextPageToken };
      },
      planDeleteSnapshot: ({ snapshotIds, options }) => planOf(world, snapshotIds.map((id) => found(world, id)), options),
      deleteSnapshot: ({ snapshotId, etag, requestId, options }) => {
        if (etag !== "" && found(world, snapshotId).etag !== etag) throw fail(Code.Aborted, "ETAG_MISMATCH", "the snapshot changed");
        return remove(world, [snapshotId], requestId, options, etag);
      },
      batchDeleteSnapshots: ({ snapshotIds, requestId, options }) => remove(world, snapshotIds, requestId, options),
      updateSnapshot: (request) => {
        const snapshot = found(world, request.snapshotId);
        if (request.etag !== "" && request.etag !== snapshot.etag) throw fail(Code.Aborted, "ETAG_MISMATCH", "the snapshot changed");
        snapshot.name = request.name ?? snapshot.name;
        snapshot.description = request.description ?? snapshot.description;
        snapshot.labels = request.labels?.labels ?? snapshot.labels;
        snapshot.deletionProtected = request.deletionProtected ?? snapshot.deletionProtected;
        snapshot.etag = `r${Number(snapshot.etag.slice(1)) + 1}`;
        world.tell({ type: EventType.SNAPSHOT_UPDATED, message: "the snapshot was changed", vmId: snapshot.vmId, snapshotId: snapshot.id, actor: "token:scripted" });
        return { snapshot };
      },
      createSnapshot: (request) => {
        const list = world.snapshotsOf(request.vmId);
        if (list.some((snapshot) => snapshot.name === request.name)) throw fail(Code.AlreadyExists, "SNAPSHOT_ALREADY_EXISTS", "the machine has a snapshot of this name", { name: request.name });
        const snapshot = create(SnapshotSchema, {
          ...{ id: request.requestId, vmId: request.vmId, name: request.name, description: request.description, labels: request.labels },
          ...{ deletionProtected: request.deletionProtected, state: SnapshotState.READY, etag: "r1", origin: SnapshotOrigin.REQUESTED },
          createdAt: world.at(0),
          disks: world.freeze(request.vmId),
        });
        world.snapshots.set(request.vmId, [...list, snapshot]);
        const operation = create(OperationSchema, {
          ...{ id: idOf(2, world.operations.length + 1), kind: OperationKind.CREATE_SNAPSHOT, state: OperationState.SUCCEEDED, vmId: request.vmId },
          ...{ snapshotId: snapshot.id, snapshotName: snapshot.name, snapshotIds: [snapshot.id], requestId: request.requestId, requestedBy: "token:scripted" },
          ...{ createdAt: world.at(0), startedAt: world.at(0), endedAt: world.at(0.2), revision: 3n },
        });
        world.operations.unshift(operation);
        world.tell({ type: EventType.SNAPSHOT_CREATED, message: "the snapshot was taken", vmId: request.vmId, snapshotId: snapshot.id, operationId: operation.id });
        return { operation };
      },
    });
    router.service(OperationService, {
      getOperation: ({ operationId }) => ({ operation: operationOf(world, operationId) }),
      listOperations: ({ vmId, states, pageSize, pageToken }) => {
        const all = world.operations.filter((each) => (vmId === "" || each.vmId === vmId) && (states.length === 0 || states.includes(each.state)));
        const { items, nextPageToken } = page(all, pageSize, pageToken);
        return { operations: items, nextPageToken };
      },
      cancelOperation: ({ operationId }) => {
        const operation = operationOf(world, operationId);
        if (!operation.cancelRequested) {
          const refusal = cancelRefusal(operation);
          if (refusal) throw fail(Code.FailedPrecondition, "POINT_OF_NO_RETURN", refusal);
          operation.cancelRequested = true;
        }
        return { operation };
      },
      updateOperation: ({ operationId, bytesPerSecond }) => {
        const operation = operationOf(world, operationId);
        if (operation.bytesPerSecond !== bytesPerSecond) operation.revision += 1n;
        operation.bytesPerSecond = bytesPerSecond;
        return { operation };
      },
    });
    router.service(InventoryService, {
      listHosts: ({ pageSize, pageToken }) => {
        const { items, nextPageToken } = page(world.hosts, pageSize, pageToken);
        return { hosts: items, nextPageToken };
      },
      listVms: ({ hostId, name, pageSize, pageToken }) => {
        const all = world.vms.filter((vm) => (hostId === "" || vm.hostId === hostId) && (name === "" || vm.name === name));
        const { items, nextPageToken } = page(all, pageSize, pageToken);
        return { vms: items, nextPageToken };
      },
      getVm: ({ vmId }) => {
        const vm = world.vm(vmId);
        if (!vm) throw missing("VM");
        return { vm };
      },
      getVolumeChain: ({ vmId }) => {
        if (!world.vm(vmId)) throw missing("VM");
        return { chains: world.disksOf(vmId).map((disk) => world.chain(vmId, disk)), unsupportedDisks: [] };
      },
      setHostMaintenance: ({ hostId, maintenance }) => {
        const host = world.hosts.find((each) => each.id === hostId);
        if (!host) throw missing("HOST");
        host.maintenance = maintenance;
        host.status = maintenance ? HostStatus.MAINTENANCE : HostStatus.UP;
        world.tell({ type: EventType.HOST_MAINTENANCE_CHANGED, message: "maintenance was changed", hostId, details: { maintenance: String(maintenance) }, actor: "token:scripted" });
        return { host };
      },
      listStorages: () => ({
        storages: world.hosts.slice(0, 3).map(({ id }) => ({
          hostId: id,
          storage: { id: "images", freeBytes: 90n << 30n, totalBytes: 400n << 30n, promisedBytes: 6n << 30n, thin: true, keepFor: { seconds: 3_600n, nanos: 0 }, foreign: ["lost+found"] },
        })),
        silentHostIds: ["host-04"],
      }),
      listRemovals: () => ({ removals: world.removals, silentHostIds: ["host-04"] }),
      restoreVolume: ({ removalId }) => {
        const index = world.removals.findIndex((each) => each.id === removalId);
        const [removal] = index < 0 ? [] : world.removals.splice(index, 1);
        if (!removal?.volume) throw missing("REMOVAL");
        return { volume: removal.volume };
      },
      checkConsistency: () => ({
        findings: [
          {
            ...{ id: "0123456789abcdef-0123456789abcdef", kind: FindingKind.LEAKED_VOLUME, severity: FindingSeverity.WARNING, hostIds: ["host-01"] },
            ...{ volume: { storage: "images", name: "livemerge-0192" }, message: "nothing refers to the volume", repair: Repair.REMOVE_VOLUME },
          },
          {
            ...{ id: "fedcba9876543210-0123456789abcdef", kind: FindingKind.UNKNOWN, severity: FindingSeverity.INFO, hostIds: ["host-04"] },
            ...{ message: "the host could not be looked at", noRepair: "bring the host back", details: { reason: "HOST_UNREACHABLE" } },
          },
        ],
      }),
      applyRepair: () => ({ outcome: RepairOutcome.DONE, freedBytes: 64n << 20n }),
    });
    router.service(EventService, {
      listEvents: ({ vmId, operationId, leastSeverity, types, pageSize, pageToken, newestFirst }) => {
        const question = { vm: vmId, operation: operationId, severity: leastSeverity, types };
        const found = world.events.filter((event) => answers(event, question));
        const { items, nextPageToken } = page(newestFirst ? found.reverse() : found, pageSize, pageToken);
        return { events: items, nextPageToken, resumeToken: String(world.events.length) };
      },
      watchEvents: (request, context) => watch(world, request, context.signal),
    });
  };
}
