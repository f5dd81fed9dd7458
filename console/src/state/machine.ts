// What the page of one machine reads.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { GetVolumeChainResponse } from "../gen/livemerge/v1/inventory_service_pb";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { Vm } from "../gen/livemerge/v1/vm_pb";
import { layersOf, type Layer } from "../logic/chain";
import { readSnapshots } from "./lists";
import { statesOf } from "../logic/filter";
import { useApp } from "./app";
import { useResource, type Resource } from "./resource";

const about = (vmId: string) => (event: Event) => event.vmId === vmId;
/** A machine's state and its chain change without an event, too. */
const LOOK_MS = 15_000;

export function useVm(vmId: string): Resource<Vm | undefined> {
  const { clients } = useApp();
  const fetch = async () => (await clients.inventory.getVm({ vmId })).vm;
  return useResource(`vm ${vmId}`, fetch, { events: about(vmId), everyMs: LOOK_MS });
}

export function useChains(vmId: string): Resource<GetVolumeChainResponse> {
  const { clients } = useApp();
  const fetch = () => clients.inventory.getVolumeChain({ vmId });
  return useResource(`chains ${vmId}`, fetch, { events: about(vmId), everyMs: LOOK_MS });
}

export function useSnapshots(vmId: string): Resource<Snapshot[]> {
  const { clients } = useApp();
  const fetch = async () => (await readSnapshots(clients, vmId)).items;
  return useResource(`snapshots ${vmId}`, fetch, { events: about(vmId) });
}

/** The last operations of the machine that have ended, newest first. */
export function useLastOperations(vmId: string): Resource<Operation[]> {
  const { clients } = useApp();
  const fetch = async () => (await clients.operations.listOperations({ vmId, states: statesOf("done"), pageSize: 5 })).operations;
  return useResource(`operations of ${vmId}`, fetch, { events: about(vmId) });
}

/** The layers of each disk. */
export function layersByDisk(chains: GetVolumeChainResponse | undefined, snapshots: readonly Snapshot[]): Map<string, Layer[]> {
  return new Map(chains?.chains.map((chain) => [chain.disk, layersOf(chain, snapshots)]));
}
