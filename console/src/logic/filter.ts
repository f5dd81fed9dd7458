// What of a list is shown.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Vm } from "../gen/livemerge/v1/vm_pb";
import { OperationState } from "../gen/livemerge/v1/operation_pb";
import { folded } from "./text";
import { operationKind, operationState, vmState } from "./words";

/** What is asked for; empty for all. */
export interface VmFilter {
  readonly q: string;
  readonly state: string;
  readonly host: string;
}

/** Every word must be found in the name, the id or the host. */
export function filterVms(vms: readonly Vm[], { q, state, host }: VmFilter): Vm[] {
  const words = folded(q).split(/\s+/u).filter(Boolean);
  return vms.filter((vm) => {
    if (state !== "" && vmState(vm.state) !== state) return false;
    if (host !== "" && vm.hostId !== host) return false;
    if (words.length === 0) return true;
    const text = folded(`${vm.name} ${vm.id} ${vm.hostId}`);
    return words.every((word) => text.includes(word));
  });
}

/** By name as people read it, then by id, so that two of one name keep their places. */
export function byName(vms: readonly Vm[]): Vm[] {
  const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  return [...vms].sort((one, other) => order.compare(one.name, other.name) || (one.id < other.id ? -1 : 1));
}

/** The tabs of the operations page. */
export type Group = "queued" | "running" | "done";

export function groupOf(state: OperationState): Group {
  switch (state) {
    case OperationState.QUEUED:
      return "queued";
    case OperationState.RUNNING:
    case OperationState.UNSPECIFIED:
      return "running";
    default:
      return "done";
  }
}

/** What goes on first, then what waits, in the order in which it gets its turn. */
export function byTurn(operations: readonly Operation[]): Operation[] {
  const place = (operation: Operation) => (operation.state === OperationState.QUEUED ? Math.max(operation.waiting?.queuePosition ?? 0, 1) : 0);
  const accepted = (operation: Operation) => Number(operation.createdAt?.seconds ?? 0n) + (operation.createdAt?.nanos ?? 0) / 1e9;
  return [...operations].sort((one, other) => place(one) - place(other) || accepted(one) - accepted(other));
}

/** The states that a tab asks the server for. */
export function statesOf(group: Group): OperationState[] {
  const { QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED } = OperationState;
  return group === "queued" ? [QUEUED] : group === "running" ? [RUNNING] : [SUCCEEDED, FAILED, CANCELLED];
}

/** What is chosen of the operations, in words; empty for all. */
export interface OperationChoice {
  readonly kind: string;
  readonly outcome: string;
}

export function chosenOperations(operations: readonly Operation[], { kind, outcome }: OperationChoice): Operation[] {
  return operations.filter((each) => (kind === "" || operationKind(each.kind) === kind) && (outcome === "" || operationState(each.state) === outcome));
}

/** What is searched in an operation: its snapshot, its machine, who asked, the reason of its failure. */
export function filterOperations(
  operations: readonly Operation[],
  q: string,
  vmNames: ReadonlyMap<string, string>,
): Operation[] {
  const words = folded(q).split(/\s+/u).filter(Boolean);
  if (words.length === 0) return [...operations];
  return operations.filter((operation) => {
    const { id, snapshotName, vmId, requestedBy, failure } = operation;
    const vm = vmNames.get(vmId) ?? "";
    const text = folded([id, snapshotName, vmId, vm, requestedBy, failure?.reason ?? ""].join(" "));
    return words.every((word) => text.includes(word));
  });
}
