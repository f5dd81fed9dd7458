// The hypervisor hosts.

import type { Host } from "../gen/livemerge/v1/inventory_service_pb";
import { Badge } from "../ui/badge";
import { Code } from "../ui/text";
import { Confirm } from "../ui/confirm";
import { Empty, Loading } from "../ui/empty";
import { HostStatus } from "../gen/livemerge/v1/inventory_service_pb";
import { Link } from "../ui/link";
import { OperationKind, OperationState } from "../gen/livemerge/v1/operation_pb";
import { ReadProblem } from "../ui/read-problem";
import { FullTime } from "../ui/time";
import { count } from "../logic/text";
import { hostStatus, hostTone } from "../logic/words";
import { mayChange } from "../session/session";
import { useApp } from "../state/app";
import { useHosts, useVms } from "../state/lists";
import { useState } from "preact/hooks";

export function HostsPage() {
  const { data: hosts, problem, refresh } = useHosts();
  const { data: vms } = useVms();
  const { hub } = useApp();
  const [asked, setAsked] = useState<Host>();
  const hostOf = new Map(vms?.map((vm) => [vm.id, vm.hostId]));
  const loads = new Map<string, Load>();
  for (const vm of vms ?? []) add(loads, vm.hostId).machines += 1;
  for (const operation of hub.open.value ?? []) {
    if (operation.kind !== OperationKind.DELETE_SNAPSHOT) continue;
    const load = add(loads, hostOf.get(operation.vmId) ?? "");
    if (operation.state === OperationState.RUNNING) load.running += 1;
    else load.queued += 1;
  }
  return (
    <section>
      <h1>Hosts</h1>
      <ReadProblem problem={problem} onRetry={refresh} />
      {hosts === undefined && !problem && <Loading />}
      {hosts?.length === 0 && (
        <Empty title="No host yet">
          <p>
            A host appears when its agent has registered itself. Start <code>livemerge-host-agent</code> on a hypervisor host with this
            server's address in its configuration.
          </p>
        </Empty>
      )}
      <ul class="cards">
        {hosts?.map((host) => (
          <HostCard key={host.id} host={host} load={loads.get(host.id) ?? NONE} onMaintenance={() => setAsked(host)} />
        ))}
      </ul>
      {asked && <Maintenance host={asked} onClose={() => (setAsked(undefined), refresh())} />}
    </section>
  );
}

interface Load {
  machines: number;
  running: number;
  queued: number;
}

const NONE: Load = { machines: 0, running: 0, queued: 0 };

function add(loads: Map<string, Load>, host: string): Load {
  const load = loads.get(host) ?? { ...NONE };
  loads.set(host, load);
  return load;
}

const MEANS: Record<number, string> = {
  [HostStatus.UNRESPONSIVE]: "Its agent does not answer. Nothing is assumed about its machines; a merge that it has accepted goes on.",
  [HostStatus.MAINTENANCE]: "In maintenance: what merges there goes on to its end, and nothing new is begun.",
  [HostStatus.INCOMPATIBLE]: "Its agent is of a version that this server does not work with. Upgrade the older of the two.",
};

function HostCard({ host, load, onMaintenance }: { host: Host; load: Load; onMaintenance: () => void }) {
  return (
    <li class="card">
      <div class="line">
        <h2>
          <Code of={host.id} />
        </h2>
        <Badge tone={hostTone(host.status)}>{hostStatus(host.status)}</Badge>
        {host.maintenance && host.status !== HostStatus.MAINTENANCE && <Badge tone="busy">MAINTENANCE</Badge>}
        {!host.hypervisorConnected && host.status === HostStatus.UP && <Badge tone="bad">libvirt does not answer</Badge>}
      </div>
      {MEANS[host.status] && <p class="faint">{MEANS[host.status]}</p>}
      <dl class="facts">
        <dt>Machines</dt>
        <dd>
          <Link to={{ page: "vms", q: "", state: "", host: host.id }}>{count(load.machines, "machine")}</Link>
        </dd>
        <dt>Merges</dt>
        <dd>
          {load.running + load.queued === 0 ? <span class="faint">none</span> : `${load.running} running, ${load.queued} queued`}
        </dd>
        <dt>Last heard</dt>
        <dd>
          <FullTime at={host.lastSeenAt} none="not since the server's start" />
        </dd>
        <dt>Agent</dt>
        <dd>
          {host.version || "not seen yet"}
          {host.apiVersion > 0 && `, contract ${host.apiVersion}`}
        </dd>
        <dt>Address</dt>
        <dd>
          <Code of={host.endpoint} />
        </dd>
      </dl>
      <div class="line foot">
        <Link to={{ page: "findings", vm: "", host: host.id }}>Check consistency</Link>
        <button type="button" disabled={!mayChange()} onClick={onMaintenance}>
          {host.maintenance ? "End maintenance" : "Into maintenance"}
        </button>
      </div>
    </li>
  );
}

function Maintenance({ host, onClose }: { host: Host; onClose: () => void }) {
  const { clients } = useApp();
  const maintenance = !host.maintenance;
  const act = async (requestId: string) => {
    await clients.inventory.setHostMaintenance({ requestId, hostId: host.id, maintenance });
    return <p>{maintenance ? "The host is in maintenance." : "The host takes work again."}</p>;
  };
  return (
    <Confirm title={`${host.id}: ${maintenance ? "into maintenance" : "end of maintenance"}`} verb={maintenance ? "Take it into maintenance" : "End maintenance"} act={act} onClose={onClose}>
      <p>
        {maintenance
          ? "What merges there goes on to its end. New creates and deletes of its machines are refused, and accepted ones that have not begun wait."
          : "The host takes work again, and what waited for it goes on by itself."}
      </p>
    </Confirm>
  );
}
