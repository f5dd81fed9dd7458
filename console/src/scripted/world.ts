// What the scripted backend has: hosts, machines, snapshots, chains, operations, a log. Everything follows from
// numbers, so that two runs are the same.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { Host } from "../gen/livemerge/v1/inventory_service_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Removal } from "../gen/livemerge/v1/removal_pb";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { Vm } from "../gen/livemerge/v1/vm_pb";
import type { VolumeChain } from "../gen/livemerge/v1/volume_pb";
import { EventSchema, EventSeverity, EventType } from "../gen/livemerge/v1/event_service_pb";
import { HostSchema, HostStatus } from "../gen/livemerge/v1/inventory_service_pb";
import { RemovalSchema, RemovalState } from "../gen/livemerge/v1/removal_pb";
import { SnapshotConsistency } from "../gen/livemerge/v1/quiesce_pb";
import { SnapshotOrigin, SnapshotSchema, SnapshotState } from "../gen/livemerge/v1/snapshot_service_pb";
import { VmSchema, VmState } from "../gen/livemerge/v1/vm_pb";
import { VolumeChainSchema, VolumeFormat } from "../gen/livemerge/v1/volume_pb";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";

/** How much there is. */
export interface Size {
  readonly vms: number;
  /** Of the first machine. */
  readonly snapshots: number;
}

export const FULL: Size = { vms: 5_000, snapshots: 500 };

/** Names as somebody who means harm, or lives elsewhere, writes them. */
export const ODD_NAMES = [
  `<img src=x onerror="alert(1)">`,
  `"quoted" & 'single'`,
  "نسخة قبل الترقية",
  "קודם 12 לפני",
  "🧑‍🚀 launch 🚀",
  "turned \u202eemag",
] as const;

const MIB = 1024 * 1024;
const HOSTS = 12;

export function idOf(kind: number, number: number): string {
  return `${kind.toString(16).padStart(8, "0")}-0000-4000-8000-${number.toString(16).padStart(12, "0")}`;
}

export class World {
  readonly hosts: Host[];
  readonly vms: Vm[];
  readonly snapshots = new Map<string, Snapshot[]>();
  readonly operations: Operation[] = [];
  readonly removals: Removal[] = [];
  readonly events: Event[] = [];
  /** Told of each new event. */
  readonly listeners = new Set<(event: Event) => void>();

  constructor(
    readonly size: Size,
    readonly now: () => number = Date.now,
  ) {
    this.hosts = Array.from({ length: HOSTS }, (_, index) => this.#host(index));
    this.vms = Array.from({ length: size.vms }, (_, index) => this.#vm(index));
    this.vms.forEach((vm, index) => this.#take(vm, index === 0 ? size.snapshots : index < 40 ? 3 + (index % 5) : 0));
    this.removals.push(
      create(RemovalSchema, {
        id: idOf(7, 1),
        volume: { storage: "images", name: "vm-0007-old" },
        state: RemovalState.CONDEMNED,
        condemnedAt: this.at(-600),
        keepUntil: this.at(3_000),
      }),
    );
    for (let index = 0; index < 300; index += 1) this.tell({ type: EventType.LIVE_MERGE_COMPLETED, message: `merge ${index} was done and verified` });
  }

  at(seconds: number) {
    return timestampFromMs(this.now() + seconds * 1000);
  }

  vm(id: string): Vm | undefined {
    return this.vms.find((vm) => vm.id === id);
  }

  snapshotsOf(vmId: string): Snapshot[] {
    return this.snapshots.get(vmId) ?? [];
  }

  snapshot(id: string): Snapshot | undefined {
    for (const list of this.snapshots.values()) {
      const found = list.find((snapshot) => snapshot.id === id);
      if (found) return found;
    }
    return undefined;
  }

  /** A base, a layer for each snapshot, and the one that the guest writes. */
  chain(vmId: string, disk: string): VolumeChain {
    const frozen = this.snapshotsOf(vmId).flatMap((snapshot) => snapshot.disks.filter((each) => each.disk === disk).map((each) => each.volume));
    const names = [...frozen.map((volume) => volume?.name ?? ""), `${vmId}-${disk}-active`];
    return create(VolumeChainSchema, {
      vmId,
      disk,
      observedAt: this.at(0),
      layers: names.map((name, index) => ({
        volume: { storage: "images", name },
        identity: name,
        locator: `/images/${name}`,
        format: VolumeFormat.QCOW2,
        virtualBytes: BigInt(10 * 1024 * MIB),
        allocatedBytes: BigInt((index === 0 ? 1_200 : 8 + ((index * 37) % 90)) * MIB),
        sharedWith: index === 0 && vmId === this.vms[1]?.id ? ["/images/clone-of-it"] : [],
      })),
    });
  }

  tell(event: Partial<Omit<Event, "$typeName" | "$unknown">>): void {
    const told = create(EventSchema, {
      severity: EventSeverity.INFO,
      occurredAt: this.at(0),
      ...event,
      revision: BigInt(this.events.length + 1),
    });
    this.events.push(told);
    for (const hear of this.listeners) hear(told);
  }

  #host(index: number): Host {
    const status = index === 3 ? HostStatus.UNRESPONSIVE : index === 5 ? HostStatus.MAINTENANCE : HostStatus.UP;
    return create(HostSchema, {
      id: `host-${String(index + 1).padStart(2, "0")}`,
      endpoint: `https://10.0.0.${index + 1}:7443`,
      status,
      version: "0.1.0",
      generation: 4n,
      lastSeenAt: this.at(index === 3 ? -900 : -2),
      hypervisorConnected: true,
      maintenance: index === 5,
      apiVersion: 1,
    });
  }

  #vm(index: number): Vm {
    const states = [VmState.RUNNING, VmState.RUNNING, VmState.RUNNING, VmState.SHUT_OFF, VmState.PAUSED];
    const id = idOf(1, index + 1);
    return create(VmSchema, {
      id,
      name: ODD_NAMES[index - 2] ?? `vm-${String(index + 1).padStart(4, "0")}`,
      hostId: `host-${String((index % HOSTS) + 1).padStart(2, "0")}`,
      state: index % HOSTS === 3 ? VmState.UNKNOWN : states[index % states.length],
      disks: [{ target: "vda", active: { storage: "images", name: `${id}-vda-active` }, locator: `/images/${id}-vda-active` }],
      observedAt: this.at(-1),
    });
  }

  #take(vm: Vm, many: number): void {
    const list = Array.from({ length: many }, (_, index) =>
      create(SnapshotSchema, {
        id: idOf(Number.parseInt(vm.id.slice(-12), 16) + 0x1000, index + 1),
        vmId: vm.id,
        name: ODD_NAMES[index - 1] ?? `daily-${String(index + 1).padStart(3, "0")}`,
        description: index === 0 ? "before the upgrade" : "",
        state: SnapshotState.READY,
        disks: [{ disk: "vda", volume: { storage: "images", name: `${vm.id}-vda-${index}` } }],
        createdAt: this.at(-(many - index) * 86_400),
        etag: "r1",
        origin: index === 4 ? SnapshotOrigin.DISCOVERED : SnapshotOrigin.REQUESTED,
        labels: index % 3 === 0 ? { tier: "daily", by: "backup" } : {},
        deletionProtected: index === 2,
        consistency: index % 2 ? SnapshotConsistency.FROZEN : SnapshotConsistency.CRASH,
      }),
    );
    this.snapshots.set(vm.id, list);
  }
}
