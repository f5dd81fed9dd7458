// The lists that several pages read.

import type { Clients } from "../api/clients";
import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { Host } from "../gen/livemerge/v1/inventory_service_pb";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { Vm } from "../gen/livemerge/v1/vm_pb";
import { PAGE_SIZE, readPages } from "../api/pages";
import { useApp } from "./app";
import { useMemo } from "preact/hooks";
import { useResource, type Resource } from "./resource";

/** Machines start and stop without an event. */
const MACHINES_MS = 30_000;
const HOSTS_MS = 10_000;

async function readHosts({ inventory }: Clients): Promise<Host[]> {
  const { items } = await readPages(async (pageToken) => {
    const page = await inventory.listHosts({ pageSize: PAGE_SIZE, pageToken });
    return { items: page.hosts, next: page.nextPageToken };
  });
  return items;
}

async function readVms({ inventory }: Clients): Promise<Vm[]> {
  const { items } = await readPages(async (pageToken) => {
    const page = await inventory.listVms({ pageSize: PAGE_SIZE, pageToken });
    return { items: page.vms, next: page.nextPageToken };
  });
  return items;
}

export async function readSnapshots({ snapshots }: Clients, vmId: string, most?: number): Promise<{ items: Snapshot[]; complete: boolean }> {
  return readPages(async (pageToken) => {
    const page = await snapshots.listSnapshots({ vmId, pageSize: PAGE_SIZE, pageToken });
    return { items: page.snapshots, next: page.nextPageToken };
  }, most);
}

const aboutHosts = (event: Event) => event.hostId !== "" && event.vmId === "";
const aboutSnapshots = (event: Event) => event.snapshotId !== "";

export function useHosts(): Resource<Host[]> {
  const { clients } = useApp();
  return useResource("hosts", () => readHosts(clients), { events: aboutHosts, everyMs: HOSTS_MS });
}

export function useVms(): Resource<Vm[]> {
  const { clients } = useApp();
  return useResource("vms", () => readVms(clients), { events: aboutHosts, everyMs: MACHINES_MS });
}

/** How many snapshots each machine has; `undefined` when there are too many to count from here. */
export function useSnapshotCounts(): ReadonlyMap<string, number> | undefined {
  const { clients } = useApp();
  const counts = async () => {
    const { items, complete } = await readSnapshots(clients, "-", 10_000);
    if (!complete) return undefined;
    const of = new Map<string, number>();
    for (const { vmId } of items) of.set(vmId, (of.get(vmId) ?? 0) + 1);
    return of;
  };
  return useResource("snapshot-counts", counts, { events: aboutSnapshots }).data;
}

/** Names of machines by id. */
export function useVmNames(): ReadonlyMap<string, string> {
  const { data } = useVms();
  return useMemo(() => new Map(data?.map((vm) => [vm.id, vm.name])), [data]);
}
