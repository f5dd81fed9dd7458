// All machines. The list may be long: only what is in sight is drawn.

import type { Vm } from "../gen/livemerge/v1/vm_pb";
import { Badge } from "../ui/badge";
import { Choice, Search } from "../ui/search";
import { Empty, Loading } from "../ui/empty";
import { Link } from "../ui/link";
import { Name } from "../ui/text";
import { ReadProblem } from "../ui/read-problem";
import { Time } from "../ui/time";
import { VirtualList } from "../ui/virtual-list";
import { VmState } from "../gen/livemerge/v1/vm_pb";
import { byName, filterVms } from "../logic/filter";
import { count, short } from "../logic/text";
import { refine } from "../state/location";
import { useApp } from "../state/app";
import { useMemo } from "preact/hooks";
import { useSnapshotCounts, useVms } from "../state/lists";
import { vmState, vmTone } from "../logic/words";
import type { Route } from "../logic/route";

const STATES = [VmState.RUNNING, VmState.PAUSED, VmState.SHUT_OFF, VmState.UNKNOWN].map(vmState);

export function VmsPage({ route }: { route: Extract<Route, { page: "vms" }> }) {
  const { data: vms, problem, refresh } = useVms();
  const { hub } = useApp();
  const counts = useSnapshotCounts();
  const sorted = useMemo(() => byName(vms ?? []), [vms]);
  const shown = useMemo(() => filterVms(sorted, route), [sorted, route.q, route.state, route.host]);
  const hosts = useMemo(() => [...new Set(vms?.map((vm) => vm.hostId))].sort(), [vms]);
  const busy = new Set(hub.open.value?.map((operation) => operation.vmId));
  return (
    <section class="tall">
      <div class="line">
        <h1>Machines</h1>
        <span class="faint" role="status">
          {vms && (shown.length === vms.length ? count(vms.length, "machine") : `${count(shown.length, "machine")} of ${vms.length.toLocaleString("en")}`)}
        </span>
      </div>
      <div class="filters">
        <Search value={route.q} label="Search name, id or host" onInput={(q) => refine({ ...route, q })} />
        <Choice value={route.state} label="State" options={[["", "all"], ...STATES.map((state) => [state, state] as const)]} onChange={(state) => refine({ ...route, state })} />
        <Choice value={route.host} label="Host" options={[["", "all"], ...hosts.map((host) => [host, host] as const)]} onChange={(host) => refine({ ...route, host })} />
      </div>
      <ReadProblem problem={problem} onRetry={refresh} />
      {vms === undefined && !problem && <Loading lines={8} />}
      {vms?.length === 0 && (
        <Empty title="No machine yet">
          <p>
            Machines appear as soon as the agent of their host reports them: <Link to={{ page: "hosts" }}>look at the hosts</Link>. Nothing has to be
            registered here.
          </p>
        </Empty>
      )}
      {vms !== undefined && vms.length > 0 && shown.length === 0 && (
        <Empty title="Nothing matches">
          <button type="button" onClick={() => refine({ page: "vms", q: "", state: "", host: "" })}>
            Show all machines
          </button>
        </Empty>
      )}
      {shown.length > 0 && (
        <VirtualList
          items={shown}
          rowHeight={56}
          keyOf={(vm) => vm.id}
          label="Machines"
          row={(vm) => <VmRow vm={vm} snapshots={counts?.get(vm.id) ?? (counts ? 0 : undefined)} busy={busy.has(vm.id)} />}
        />
      )}
    </section>
  );
}

function VmRow({ vm, snapshots, busy }: { vm: Vm; snapshots: number | undefined; busy: boolean }) {
  return (
    <Link to={{ page: "vm", id: vm.id }} class="row">
      <span class="main">
        <Name of={vm.name || short(vm.id)} />
        <small class="faint">{short(vm.id)}</small>
      </span>
      <span class="side">
        {busy && <Badge tone="busy">merging</Badge>}
        {vm.stillFrozen && <Badge tone="bad">guest frozen</Badge>}
        <Badge tone={vmTone(vm.state)}>{vmState(vm.state)}</Badge>
      </span>
      <span class="extra faint">{snapshots === undefined ? "" : count(snapshots, "snapshot")}</span>
      <span class="extra faint">{vm.hostId}</span>
      <span class="extra faint">
        <Time at={vm.observedAt} />
      </span>
    </Link>
  );
}
