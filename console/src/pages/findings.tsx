// What differs between the record, the hosts and the storage, and what is safe to do about it.

import type { Finding } from "../gen/livemerge/v1/consistency_pb";
import type { Route } from "../logic/route";
import { Badge } from "../ui/badge";
import { Code } from "../ui/text";
import { CommandBox } from "../ui/copy";
import { Confirm } from "../ui/confirm";
import { Empty, Loading } from "../ui/empty";
import { Fact } from "../ui/problem";
import { ReadProblem } from "../ui/read-problem";
import { Link } from "../ui/link";
import { bytes } from "../logic/bytes";
import { cli, grpcurl } from "../logic/commands";
import { count, visible } from "../logic/text";
import { findingKind, findingSeverity, repairEffect, repairOutcome, repairWords, severityTone } from "../logic/words";
import { mayChange } from "../session/session";
import { useApp } from "../state/app";
import { useResource } from "../state/resource";
import { useState } from "preact/hooks";
import { volumeKey } from "../logic/names";

export function FindingsPage({ route }: { route: Extract<Route, { page: "findings" }> }) {
  const { clients } = useApp();
  const [asked, ask] = useState<Finding>();
  // A look reads every header there is, so it is made when it is asked for, not when something happens.
  const fetch = async () => ({ ...(await clients.inventory.checkConsistency({ vmId: route.vm, hostId: route.host })), lookedAt: Date.now() });
  const { data, problem, refresh } = useResource(`findings ${route.vm} ${route.host}`, fetch, { onVisible: false });
  return (
    <section>
      <div class="line">
        <h1>Consistency</h1>
        <span class="faint" role="status">
          {data && count(data.findings.length, "finding")}
        </span>
        <span class="grow" />
        <button type="button" onClick={refresh}>
          Look again
        </button>
      </div>
      <p class="faint">The record is compared with the chains, headers and storage domains as they are now. Looking changes nothing.</p>
      {(route.vm || route.host) && (
        <p>
          Only what concerns <Code of={route.vm || route.host} />. <Link to={{ page: "findings", vm: "", host: "" }}>Look at everything</Link>
        </p>
      )}
      <ReadProblem problem={problem} onRetry={refresh} />
      {data === undefined && !problem && <Loading />}
      {data?.findings.length === 0 && (
        <Empty title="Record, hosts and storage agree">
          <p>Leaked volumes, snapshots without a volume, layers that nobody accounts for and damaged journals would stand here, each with a repair where one is safe.</p>
        </Empty>
      )}
      <ul class="plain">{data?.findings.map((finding) => <Row key={finding.id} finding={finding} onRepair={() => ask(finding)} />)}</ul>
      {data && data.omittedFindings > 0 && <p class="note">{count(data.omittedFindings, "finding")} more are not shown.</p>}
      {asked && <Repairing finding={asked} onClose={() => (ask(undefined), refresh())} />}
    </section>
  );
}

function Row({ finding, onRepair }: { finding: Finding; onRepair: () => void }) {
  return (
    <li class="card">
      <div class="line">
        <Badge tone={severityTone(finding.severity)}>{findingSeverity(finding.severity)}</Badge>
        <h2 class="small">{findingKind(finding.kind)}</h2>
        <span class="grow" />
        {finding.repair !== 0 && (
          <button type="button" disabled={!mayChange()} onClick={onRepair}>
            {repairWords(finding.repair)}…
          </button>
        )}
      </div>
      <p dir="auto">{visible(finding.message)}</p>
      {finding.noRepair && (
        <p class="note" dir="auto">
          No repair is safe: {visible(finding.noRepair)}
        </p>
      )}
      <details>
        <summary>Details</summary>
        <dl class="facts">
          {finding.vmId && (
            <>
              <dt>machine</dt>
              <dd>
                <Link to={{ page: "vm", id: finding.vmId }}>
                  <code>{finding.vmId}</code>
                </Link>
              </dd>
            </>
          )}
          {finding.snapshotId && <Fact name="snapshot" value={finding.snapshotId} />}
          {finding.volume && <Fact name="volume" value={volumeKey(finding.volume)} />}
          {finding.hostIds.map((host) => (
            <Fact key={host} name="host" value={host} />
          ))}
          {Object.entries(finding.details).map(([name, value]) => (
            <Fact key={name} name={name} value={value} />
          ))}
          <Fact name="finding" value={finding.id} />
        </dl>
      </details>
    </li>
  );
}

function Repairing({ finding, onClose }: { finding: Finding; onClose: () => void }) {
  const { clients, hub } = useApp();
  const act = async (requestId: string) => {
    const { outcome, operation, freedBytes } = await clients.inventory.applyRepair({ requestId, findingId: finding.id });
    hub.look();
    return (
      <>
        <p>
          {repairOutcome(outcome)} {Number(freedBytes) > 0 && `${bytes(freedBytes)} given back.`}
        </p>
        {operation && <Link to={{ page: "operation", id: operation.id }}>Watch the operation</Link>}
      </>
    );
  };
  return (
    <Confirm title={repairWords(finding.repair)} verb={repairWords(finding.repair)} act={act} onClose={onClose}>
      <p dir="auto">{visible(finding.message)}</p>
      <p>{repairEffect(finding.repair)}</p>
      <p class="faint">The server looks again first, and repairs only what it finds again just so.</p>
      <CommandBox
        commands={{
          cli: cli("doctor", "--repair", finding.id),
          grpcurl: grpcurl("InventoryService/ApplyRepair", { finding_id: finding.id }),
        }}
      />
    </Confirm>
  );
}
