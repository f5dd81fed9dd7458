// One machine: its snapshots, and the chain of each of its disks.

import type { Route } from "../logic/route";
import type { Vm } from "../gen/livemerge/v1/vm_pb";
import { Badge } from "../ui/badge";
import { Chains } from "./vm-chains";
import { Code, Name } from "../ui/text";
import { CreateDialog } from "../dialogs/create";
import { DeleteDialog } from "../dialogs/delete";
import { EditDialog } from "../dialogs/edit";
import { Link } from "../ui/link";
import { Loading } from "../ui/empty";
import { OperationRow } from "../ui/operation-row";
import { ReadProblem } from "../ui/read-problem";
import { Snapshots } from "./vm-snapshots";
import { FullTime } from "../ui/time";
import { close, go } from "../state/location";
import { layersByDisk, useChains, useLastOperations, useSnapshots, useVm } from "../state/machine";
import { mayChange } from "../session/session";
import { useApp } from "../state/app";
import { useMemo } from "preact/hooks";
import { vmState, vmTone } from "../logic/words";

export function VmPage({ route }: { route: Extract<Route, { page: "vm" }> }) {
  const vmId = route.id;
  const vm = useVm(vmId);
  const chains = useChains(vmId);
  const snapshots = useSnapshots(vmId);
  const layers = useMemo(() => layersByDisk(chains.data, snapshots.data ?? []), [chains.data, snapshots.data]);
  const { hub } = useApp();
  // What stands above is there first, so that nothing moves down when it comes. A host that does not answer
  // keeps only its chains back.
  const filled = [vm, snapshots].every((each) => each.data !== undefined || each.problem !== undefined) && (hub.open.value !== undefined || hub.freshness.value === "stale");
  const closed = () => close({ page: "vm", id: vmId });
  const { dialog } = route;
  const edited = dialog?.kind === "edit" ? snapshots.data?.find((each) => each.id === dialog.snapshot) : undefined;
  return (
    <section>
      <p class="crumbs">
        <Link to={{ page: "vms", q: "", state: "", host: "" }}>Machines</Link> /
      </p>
      {filled && vm.data && <Head vm={vm.data} />}
      <ReadProblem problem={vm.problem} onRetry={vm.refresh} />
      {filled ? (
        <>
          <Open vmId={vmId} />
          <Snapshots vmId={vmId} snapshots={snapshots} chains={chains.data} />
          <Chains chains={chains} layers={layers} disks={vm.data?.disks.length ?? 1} />
          <Last vmId={vmId} />
        </>
      ) : (
        <Loading lines={8} />
      )}
      {dialog?.kind === "create" && <CreateDialog vmId={vmId} onClose={closed} />}
      {dialog?.kind === "delete" && snapshots.data && (
        <DeleteDialog vmId={vmId} wanted={dialog.snapshots} snapshots={snapshots.data} layers={layers} onClose={closed} />
      )}
      {edited && <EditDialog snapshot={edited} onClose={closed} onDone={snapshots.refresh} />}
    </section>
  );
}

function Head({ vm }: { vm: Vm }) {
  return (
    <header class="head">
      <div class="line">
        <h1>
          <Name of={vm.name} />
        </h1>
        <Badge tone={vmTone(vm.state)}>{vmState(vm.state)}</Badge>
        {vm.stillFrozen && (
          <Badge tone="bad" title="The guest's file systems were frozen for a snapshot, and it is not certain that they write again. The host goes on trying.">
            guest frozen
          </Badge>
        )}
        <span class="grow" />
        <button type="button" class="primary" disabled={!mayChange()} onClick={() => go({ page: "vm", id: vm.id, dialog: { kind: "create" } })}>
          Take a snapshot
        </button>
      </div>
      <p class="faint line">
        <Code of={vm.id} />
        <span>
          on <Link to={{ page: "hosts" }}>{vm.hostId}</Link>
        </span>
        <span>
          seen <FullTime at={vm.observedAt} />
        </span>
        <Link to={{ page: "events", vm: vm.id, operation: "", severity: "", type: "", q: "" }}>Audit log</Link>
        <Link to={{ page: "findings", vm: vm.id, host: "" }}>Check consistency</Link>
      </p>
    </header>
  );
}

/** What goes on now. */
function Open({ vmId }: { vmId: string }) {
  const { hub } = useApp();
  const open = hub.open.value?.filter((operation) => operation.vmId === vmId) ?? [];
  if (open.length === 0) return null;
  return (
    <ul class="plain" aria-label="Operations under way">
      {open.map((operation) => (
        <li key={operation.id}>
          <OperationRow operation={operation} />
        </li>
      ))}
    </ul>
  );
}

function Last({ vmId }: { vmId: string }) {
  const { data } = useLastOperations(vmId);
  if (!data || data.length === 0) return null;
  return (
    <>
      <div class="line">
        <h2>Last operations</h2>
        <Link to={{ page: "operations", group: "done", q: "", vm: vmId }}>All of this machine</Link>
      </div>
      <ul class="plain">
        {data.map((operation) => (
          <li key={operation.id}>
            <OperationRow operation={operation} />
          </li>
        ))}
      </ul>
    </>
  );
}
