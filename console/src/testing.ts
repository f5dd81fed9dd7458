// Short ways to messages for tests.

import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { MergePlanSchema, SnapshotSchema } from "./gen/livemerge/v1/snapshot_service_pb";
import { DiskProgressSchema, OperationKind, OperationSchema, OperationState } from "./gen/livemerge/v1/operation_pb";
import { VolumeChainSchema } from "./gen/livemerge/v1/volume_pb";
import { create } from "@bufbuild/protobuf";

/** Fields of a message, as they are written in a test. */
type Some<D extends DescMessage> = Exclude<MessageInitShape<D>, { $typeName: string }>;

export const volume = (name: string) => ({ storage: "images", name });

export const chainOf = (names: readonly string[], sizes: readonly number[] = []) =>
  create(VolumeChainSchema, {
    disk: "vda",
    layers: names.map((name, index) => ({ volume: volume(name), allocatedBytes: BigInt(sizes[index] ?? 100) })),
  });

export const snapshotOf = (name: string, volumeName: string, more: Some<typeof SnapshotSchema> = {}) =>
  create(SnapshotSchema, { id: name, name, disks: [{ disk: "vda", volume: volume(volumeName) }], ...more });

export const mergeOf = (kept: string, removed: readonly string[], more: Some<typeof MergePlanSchema> = {}) =>
  create(MergePlanSchema, { disk: "vda", kept: volume(kept), removed: removed.map(volume), ...more });

export const diskOf = (more: Some<typeof DiskProgressSchema> = {}) => create(DiskProgressSchema, { disk: "vda", ...more });

export const deleteOf = (more: Some<typeof OperationSchema> = {}) =>
  create(OperationSchema, { id: "o", kind: OperationKind.DELETE_SNAPSHOT, state: OperationState.RUNNING, snapshotName: "monday", snapshotIds: ["s"], ...more });
