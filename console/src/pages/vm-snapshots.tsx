// The snapshots of a machine, oldest first, as the chain stacks them; at the end is the machine as it runs.

import type { GetVolumeChainResponse } from "../gen/livemerge/v1/inventory_service_pb";
import type { Node } from "../logic/lineage";
import type { Resource } from "../state/resource";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import { Badge } from "../ui/badge";
import { Empty, Loading } from "../ui/empty";
import { Link } from "../ui/link";
import { Name } from "../ui/text";
import { ReadProblem } from "../ui/read-problem";
import { SnapshotOrigin, SnapshotState } from "../gen/livemerge/v1/snapshot_service_pb";
import { Time } from "../ui/time";
import { VirtualList } from "../ui/virtual-list";
import { bytes } from "../logic/bytes";
import { consistencyWords, originMeans, originWords, snapshotState, snapshotTone } from "../logic/words";
import { count, folded, visible, visibleLines } from "../logic/text";
import { go } from "../state/location";
import { lineage } from "../logic/lineage";
import { mayChange } from "../session/session";
import { useMemo, useState } from "preact/hooks";
import { Search } from "../ui/search";

interface Props {
  readonly vmId: string;
  readonly snapshots: Resource<Snapshot[]>;
  readonly chains: GetVolumeChainResponse | undefined;
}

/** Beyond so many a search is worth its room. */
const MANY = 12;

export function Snapshots({ vmId, snapshots, chains }: Props) {
  const { data, problem, refresh } = snapshots;
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [q, setQ] = useState("");
  const nodes = useMemo(() => lineage(data ?? [], chains?.chains ?? []), [data, chains]);
  const shown = useMemo(() => nodes.filter((node) => matches(node.snapshot, q)), [nodes, q]);
  // What is gone meanwhile is not chosen any more.
  const selected = nodes.filter((node) => chosen.has(node.snapshot.id)).map((node) => node.snapshot.id);
  const toggle = (id: string) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    setChosen(next);
  };
  const remove = (ids: readonly string[]) => go({ page: "vm", id: vmId, dialog: { kind: "delete", snapshots: ids } });
  const may = mayChange();
  return (
    <>
      <div class="line">
        <h2>Snapshots</h2>
        <span class="faint">{data && count(data.length, "snapshot")}</span>
        <span class="grow" />
        {selected.length > 0 && (
          <button type="button" class="quiet" onClick={() => setChosen(new Set())}>
            Clear
          </button>
        )}
        {shown.length > 1 && (
          <button type="button" class="quiet" onClick={() => setChosen(new Set(shown.map((node) => node.snapshot.id)))}>
            Select all
          </button>
        )}
        <button type="button" class="danger" disabled={selected.length === 0 || !may} onClick={() => remove(selected)} title={may ? "" : "Your role may look, not delete."}>
          {selected.length > 1 ? `Delete ${selected.length}…` : "Delete…"}
        </button>
      </div>
      {nodes.length > MANY && <Search value={q} label="Search snapshots and labels" onInput={setQ} />}
      <ReadProblem problem={problem} onRetry={refresh} />
      {data === undefined && !problem && <Loading />}
      {data?.length === 0 && (
        <Empty title="No snapshot">
          <p>
            A snapshot keeps a point in time of all disks: the volumes are frozen, and the guest writes fresh ones on top. Deleting it later merges
            them again while the machine runs.
          </p>
        </Empty>
      )}
      {shown.length > 0 && (
        <div class={shown.length > MANY ? "list long" : "list"}>
          <VirtualList
            items={shown}
            rowHeight={64}
            keyOf={(node) => node.snapshot.id}
            label="Snapshots, oldest first"
            row={(node) => (
              <Row
                vmId={vmId}
                node={node}
                chosen={chosen.has(node.snapshot.id)}
                onToggle={() => toggle(node.snapshot.id)}
                onDelete={() => remove([node.snapshot.id])}
                may={may}
                known={chains !== undefined}
              />
            )}
          />
        </div>
      )}
      {data !== undefined && data.length > 0 && (
        <p class="here faint">
          <span class="dot" aria-hidden="true" /> now: the machine as it runs
        </p>
      )}
    </>
  );
}

function matches(snapshot: Snapshot, q: string): boolean {
  const labels = Object.entries(snapshot.labels).map(([key, value]) => `${key}=${value}`);
  const text = folded([snapshot.name, snapshot.description, snapshot.id, ...labels].join(" "));
  return folded(q).split(/\s+/u).every((word) => text.includes(word));
}

interface RowProps {
  readonly vmId: string;
  readonly node: Node;
  readonly chosen: boolean;
  readonly onToggle: () => void;
  readonly onDelete: () => void;
  readonly may: boolean;
  /** The chains were read. */
  readonly known: boolean;
}

function Row({ vmId, node, chosen, onToggle, onDelete, may, known }: RowProps) {
  const { snapshot, bytes: size, detached } = node;
  const labels = Object.entries(snapshot.labels);
  const leaving = snapshot.state === SnapshotState.DELETING;
  return (
    <div class={`row tree ${chosen ? "chosen" : ""} ${detached ? "detached" : ""}`}>
      <span class="rail" aria-hidden="true" />
      <input type="checkbox" checked={chosen} onChange={onToggle} aria-label={`Select ${visible(snapshot.name)}`} />
      <span class="main">
        <span class="line tight">
          <strong>
            <Name of={snapshot.name} />
          </strong>
          {snapshot.state !== SnapshotState.READY && <Badge tone={snapshotTone(snapshot.state)}>{snapshotState(snapshot.state)}</Badge>}
          {snapshot.deletionProtected && <Badge tone="calm">protected</Badge>}
          {snapshot.origin !== SnapshotOrigin.REQUESTED && (
            <Badge tone="warn" title={originMeans(snapshot.origin)}>
              {originWords(snapshot.origin)}
            </Badge>
          )}
          {detached && snapshot.state === SnapshotState.READY && <Badge tone="warn">in no chain</Badge>}
        </span>
        <small class="faint line tight meta">
          <Time at={snapshot.createdAt} />
          <span>{size !== undefined ? bytes(size) : known ? "size not known" : ""}</span>
          <span class="more">{consistencyWords(snapshot.consistency)}</span>
          {labels.slice(0, 4).map(([key, value]) => (
            <span key={key} class="label more">
              <Name of={`${key}=${value}`} />
            </span>
          ))}
          {labels.length > 4 && <span class="more">+{labels.length - 4}</span>}
          {snapshot.description && (
            <span class="more last" title={visibleLines(snapshot.description)}>
              <Name of={snapshot.description} />
            </span>
          )}
        </small>
      </span>
      <span class="acts">
        <Link to={{ page: "vm", id: vmId, dialog: { kind: "edit", snapshot: snapshot.id } }} label={`${may ? "Edit" : "Look at"} ${visible(snapshot.name)}`}>
          {may ? "Edit" : "Look"}
        </Link>
        <button type="button" class="danger" disabled={!may || leaving} title={leaving ? "It is being deleted already." : ""} onClick={onDelete} aria-label={`Delete ${visible(snapshot.name)}`}>
          Delete…
        </button>
      </span>
    </div>
  );
}
