// Deletes snapshots: first what it will do, then the click.

import type { Layer } from "../logic/chain";
import type { Problem } from "../api/problem";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import type { Typed } from "../logic/protection";
import { Choice } from "../ui/search";
import { CommandBox } from "../ui/copy";
import { ConfirmNames } from "./confirm-names";
import { Dialog } from "../ui/dialog";
import { Loading } from "../ui/empty";
import { MergeDirection } from "../gen/livemerge/v1/merge_pb";
import { Name } from "../ui/text";
import { Obstacles } from "./obstacles";
import { PlanView } from "./plan-view";
import { ProblemBox } from "../ui/problem";
import { UNLIMITED, limitAt, limitWords } from "../logic/bandwidth";
import { changes, obstacles, summary } from "../logic/plan";
import { count } from "../logic/text";
import { deleteSnapshots } from "../logic/commands";
import { freshId } from "../api/request-id";
import { mayChange } from "../session/session";
import { NotOrdered, orderDelete } from "../state/order-delete";
import { problemOf } from "../api/problem";
import { replace } from "../state/location";
import { typedRight } from "../logic/protection";
import { useApp } from "../state/app";
import { useMounted } from "../state/mounted";
import { useResource } from "../state/resource";
import { useRef, useState } from "preact/hooks";
import { useSettled } from "../state/settled";

interface Props {
  readonly vmId: string;
  readonly wanted: readonly string[];
  readonly snapshots: readonly Snapshot[];
  readonly layers: ReadonlyMap<string, readonly Layer[]>;
  readonly onClose: () => void;
}

type Direction = "" | "commit" | "pull";

const DIRECTIONS = [
  ["", "the cheaper way"],
  ["commit", "commit: down, into the oldest volume"],
  ["pull", "pull: up, into the active layer"],
] as const;

export function DeleteDialog({ vmId, wanted, snapshots, layers, onClose }: Props) {
  const { clients, hub } = useApp();
  // What this dialog has read is not what an earlier one had read.
  const [opened] = useState(freshId);
  const [requestId, setRequestId] = useState(freshId);
  const [direction, setDirection] = useState<Direction>("");
  const [place, setPlace] = useState(UNLIMITED);
  const [typed, setTyped] = useState<Typed>({});
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const [bare, setBare] = useState<readonly Snapshot[]>([]);
  const mounted = useMounted();
  const chosen = snapshots.filter((snapshot) => wanted.includes(snapshot.id));
  const ids = chosen.map((snapshot) => snapshot.id);
  const locked = chosen.filter((snapshot) => snapshot.deletionProtected);
  const bytesPerSecond = limitAt(place);
  const options = optionsOf(direction, bytesPerSecond);
  // Another payload is another request.
  const change = (way: Direction, limit: number) => {
    setDirection(way);
    setPlace(limit);
    setRequestId(freshId());
  };

  const limit = useSettled(bytesPerSecond);
  const fetch = async () => (ids.length === 0 ? undefined : clients.snapshots.planDeleteSnapshot({ snapshotIds: ids, options: optionsOf(direction, limit) }));
  const plan = useResource(`plan ${opened} ${ids.join(",")} ${direction} ${limit}`, fetch, { events: (event) => event.vmId === vmId });
  // While another one is made the last one stays in sight, but is not what a click would do.
  const last = useRef(plan.data);
  if (plan.data !== undefined) last.current = plan.data;
  const shown = last.current;

  // Protection is lifted by the typed name: it does not stand in the way of who has typed it.
  const others = shown?.blockers.filter((blocker) => blocker.reason !== "SNAPSHOT_PROTECTED" || locked.length === 0) ?? [];
  const names = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot.name]));
  const confirmed = typedRight(typed, locked);
  const current = plan.data !== undefined && !plan.problem && limit === bytesPerSecond;
  const ready = current && others.length === 0 && confirmed && mayChange();

  const run = async () => {
    setBusy(true);
    setProblem(undefined);
    setBare([]);
    try {
      const operation = await orderDelete(clients, { vmId, chosen, requestId, options });
      hub.look();
      if (!mounted.current) return;
      if (operation) replace({ page: "operation", id: operation.id });
      else onClose();
    } catch (thrown) {
      setProblem(problemOf(thrown instanceof NotOrdered ? thrown.cause : thrown));
      if (thrown instanceof NotOrdered) setBare(thrown.bare);
    }
    setBusy(false);
  };

  return (
    <Dialog title={ids.length === 1 ? "Delete a snapshot" : `Delete ${count(ids.length, "snapshot")}`} onClose={onClose} busy={busy} wide>
      {chosen.length === 0 && <p>What was chosen is gone already: there is nothing to delete.</p>}
      {chosen.length > 0 && (
        <p class="line tight">
          {chosen.slice(0, 20).map((snapshot) => (
            <span key={snapshot.id} class="label">
              <Name of={snapshot.name} />
              {snapshot.deletionProtected && " (protected)"}
            </span>
          ))}
          {chosen.length > 20 && <span class="faint">and {chosen.length - 20} more</span>}
        </p>
      )}
      {plan.problem && <ProblemBox problem={plan.problem} onRetry={plan.refresh} />}
      {shown === undefined && !plan.problem && chosen.length > 0 && <Loading lines={8} />}
      {shown && (
        <div aria-busy={!current}>
          <p class="summary">
            <strong>{summary(shown)}</strong> The machine keeps running. From the first byte that is merged, {ids.length === 1 ? "this point in time is" : "these points in time are"} gone for good.
          </p>
          <Obstacles obstacles={obstacles(others, names)} />
          <PlanView changes={changes(shown, layers)} />
        </div>
      )}
      {chosen.length > 0 && (
        <details>
          <summary>How it merges</summary>
          <Choice value={direction} label="Direction" options={DIRECTIONS} onChange={(value) => change(value as Direction, place)} />
          <label class="field">
            <span>Limit: {limitWords(bytesPerSecond)}</span>
            <input type="range" min={0} max={UNLIMITED} value={place} aria-valuetext={limitWords(bytesPerSecond)} onInput={(event) => change(direction, Number(event.currentTarget.value))} />
          </label>
        </details>
      )}
      {chosen.length > 0 && <CommandBox commands={deleteSnapshots({ vm: vmId, snapshots: ids, etag: chosen.length === 1 ? chosen[0]?.etag : "", requestId, direction, bytesPerSecond })} />}
      {locked.length > 0 && <ConfirmNames locked={locked} typed={typed} onTyped={setTyped} />}
      {problem && <ProblemBox problem={problem} />}
      {bare.length > 0 && (
        <p class="note" role="alert">
          Without the protection that they had, because it could not be put back:{" "}
          {bare.map((snapshot) => (
            <span key={snapshot.id} class="label">
              <Name of={snapshot.name} />
            </span>
          ))}
        </p>
      )}
      <footer>
        <button type="button" disabled={busy} onClick={onClose}>
          Keep {ids.length === 1 ? "it" : "them"}
        </button>
        <button type="button" class="danger" disabled={!ready || busy} onClick={() => void run()}>
          {busy ? "Asking…" : ids.length === 1 ? "Delete" : `Delete ${ids.length}`}
        </button>
      </footer>
      {!mayChange() && <p class="faint">Your role may look, not delete.</p>}
    </Dialog>
  );
}

const DIRECTION = {
  "": MergeDirection.UNSPECIFIED,
  commit: MergeDirection.COMMIT,
  pull: MergeDirection.PULL,
} as const;

function optionsOf(direction: Direction, bytesPerSecond: number) {
  return { direction: DIRECTION[direction], bytesPerSecond: BigInt(bytesPerSecond) };
}
