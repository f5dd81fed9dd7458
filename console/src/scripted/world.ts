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

/** A volume of a chain. */
export interface StoredLayer {
  readonly name: string;
  allocated: number;
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
const VIRTUAL = 10 * 1024 * MIB;
const HOSTS = 12;

export function idOf(kind: number, number: number): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  // Spread over the first digits, which is what short forms show.
  const spread = Math.imul(number * 31 + kind, 0x9e3779b1) >>> 0;
  return `${hex(spread, 8)}-${hex(kind, 4)}-4000-8000-${hex(number, 12)}`;
}

export class World {
  readonly hosts: Host[];
  readonly vms: Vm[];
  readonly snapshots = new Map<string, Snapshot[]>();
  /** Chains by machine and disk, base first. */
  readonly layers = new Map<string, Map<string, StoredLayer[]>>();
  readonly operations: Operation[] = [];
  readonly removals: Removal[] = [];
  /** What was asked for with each request id. */
  readonly requests = new Map<string, string>();
  readonly events: Event[] = [];
  /** Told of each new event. */
  readonly listeners = new Set<(event: Event) => void>();
  #volumes = 0;
  /** How far its clock is off, so that a history can be made. */
  shiftMs = 0;

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
    return timestampFromMs(this.now() + this.shiftMs + seconds * 1000);
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

  disksOf(vmId: string): string[] {
    return [...(this.layers.get(vmId)?.keys() ?? [])];
  }

  layersOf(vmId: string, disk: string): StoredLayer[] {
    return this.layers.get(vmId)?.get(disk) ?? [];
  }

  chain(vmId: string, disk: string): VolumeChain {
    return create(VolumeChainSchema, {
      vmId,
      disk,
      observedAt: this.at(0),
      layers: this.layersOf(vmId, disk).map(({ name, allocated }, index) => ({
        volume: { storage: "images", name },
        identity: name,
        locator: `/images/${name}`,
        format: index === 0 ? VolumeFormat.RAW : VolumeFormat.QCOW2,
        virtualBytes: BigInt(VIRTUAL),
        allocatedBytes: BigInt(allocated),
        sharedWith: index === 0 && vmId === this.vms[1]?.id ? ["/images/clone-of-it"] : [],
      })),
    });
  }

  /** Freezes what the guest writes, and gives it a fresh layer. Answers the frozen volumes. */
  freeze(vmId: string): { disk: string; volume: { storage: string; name: string } }[] {
    return this.disksOf(vmId).map((disk) => {
      const chain = this.layersOf(vmId, disk);
      const volume = { storage: "images", name: chain.at(-1)?.name ?? "" };
      this.#volumes += 1;
      chain.push({ name: `${vmId.slice(-4)}-${disk}-new-${this.#volumes}`, allocated: MIB });
      return { disk, volume };
    });
  }

  /** A merge has ended: the kept volume has what the removed ones held, and the snapshots that named them name it. */
  fold(vmId: string, disk: string, kept: string, removed: readonly string[]): void {
    const chain = this.layersOf(vmId, disk);
    const gone = chain.filter((layer) => removed.includes(layer.name));
    const into = chain.find((layer) => layer.name === kept);
    if (into) into.allocated = Math.min(into.allocated + gone.reduce((sum, layer) => sum + layer.allocated, 0), VIRTUAL);
    this.layers.get(vmId)?.set(
      disk,
      chain.filter((layer) => !gone.includes(layer)),
    );
    for (const snapshot of this.snapshotsOf(vmId)) {
      for (const each of snapshot.disks) {
        if (each.disk === disk && each.volume && removed.includes(each.volume.name)) each.volume.name = kept;
      }
    }
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
    const disks = index % 8 === 7 ? ["vda", "vdb"] : ["vda"];
    return create(VmSchema, {
      id,
      name: ODD_NAMES[index - 2] ?? `vm-${String(index + 1).padStart(4, "0")}`,
      hostId: `host-${String((index % HOSTS) + 1).padStart(2, "0")}`,
      state: index % HOSTS === 3 ? VmState.UNKNOWN : states[index % states.length],
      disks: disks.map((target) => ({ target, locator: `/images/${target}` })),
      observedAt: this.at(-1),
    });
  }

  #take(vm: Vm, many: number): void {
    const short = vm.id.slice(-4);
    const disks = vm.disks.map((disk) => disk.target);
    const list = Array.from({ length: many }, (_, index) =>
      create(SnapshotSchema, {
        id: idOf(Number.parseInt(vm.id.slice(-12), 16) + 0x1000, index + 1),
        vmId: vm.id,
        name: ODD_NAMES[index - 1] ?? `daily-${String(index + 1).padStart(3, "0")}`,
        description: index === 0 ? "before the upgrade" : "",
        state: SnapshotState.READY,
        disks: disks.map((disk) => ({ disk, volume: { storage: "images", name: `${short}-${disk}-${index}` } })),
        createdAt: this.at(-(many - index) * 86_400),
        etag: "r1",
        origin: index === 4 ? SnapshotOrigin.DISCOVERED : SnapshotOrigin.REQUESTED,
        labels: index % 3 === 0 ? { tier: "daily", by: "backup" } : {},
        deletionProtected: index === 2,
        consistency: index % 2 ? SnapshotConsistency.FROZEN : SnapshotConsistency.CRASH,
      }),
    );
    this.snapshots.set(vm.id, list);
    const chain = (disk: string) =>
      Array.from({ length: many + 1 }, (_, index) => ({
        name: `${short}-${disk}-${index}`,
        allocated: (index === 0 ? 1_200 : 8 + ((index * 37) % 90)) * MIB,
      }));
    this.layers.set(vm.id, new Map(disks.map((disk) => [disk, chain(disk)])));
  }
}
