// Deletes snapshots: first what it will do, then the click.

import type { Layer } from "../logic/chain";
import type { Problem } from "../api/problem";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import { Choice } from "../ui/search";
import { CommandBox } from "../ui/copy";
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
import { orderDelete } from "../state/order-delete";
import { problemOf } from "../api/problem";
import { replace } from "../state/location";
import { typedRight } from "../logic/protection";
import { useApp } from "../state/app";
import { useResource } from "../state/resource";
import { useState } from "preact/hooks";

interface Props {
  readonly vmId: string;
  readonly wanted: readonly string[];
  readonly snapshots: readonly Snapshot[];
  readonly layers: ReadonlyMap<string, readonly Layer[]>;
  readonly onClose: () => void;
}

const DIRECTIONS = [
  ["", "the cheaper way"],
  ["commit", "commit: down, into the oldest volume"],
  ["pull", "pull: up, into the active layer"],
] as const;

export function DeleteDialog({ vmId, wanted, snapshots, layers, onClose }: Props) {
  const { clients, hub } = useApp();
  const [requestId] = useState(freshId);
  const [direction, setDirection] = useState<"" | "commit" | "pull">("");
  const [place, setPlace] = useState(UNLIMITED);
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const chosen = snapshots.filter((snapshot) => wanted.includes(snapshot.id));
  const ids = chosen.map((snapshot) => snapshot.id);
  const locked = chosen.filter((snapshot) => snapshot.deletionProtected);
  const bytesPerSecond = limitAt(place);
  const options = { direction: DIRECTION[direction], bytesPerSecond: BigInt(bytesPerSecond) };

  const fetch = async () => (ids.length === 0 ? undefined : clients.snapshots.planDeleteSnapshot({ snapshotIds: ids, options }));
  const plan = useResource(`plan ${ids.join(",")} ${direction}`, fetch, { events: (event) => event.vmId === vmId });

  // Protection is lifted by the typed name: it does not stand in the way of who has typed it.
  const others = plan.data?.blockers.filter((blocker) => blocker.reason !== "SNAPSHOT_PROTECTED" || locked.length === 0) ?? [];
  const names = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot.name]));
  const confirmed = typedRight(typed, locked);
  const ready = plan.data !== undefined && others.length === 0 && confirmed && mayChange();

  const run = async () => {
    setBusy(true);
    setProblem(undefined);
    try {
      const operation = await orderDelete(clients, { vmId, chosen, requestId, options });
      hub.look();
      if (operation) replace({ page: "operation", id: operation.id });
      else onClose();
    } catch (thrown) {
      setProblem(problemOf(thrown));
    }
    setBusy(false);
  };

  return (
    <Dialog title={ids.length === 1 ? "Delete a snapshot" : `Delete ${count(ids.length, "snapshot")}`} onClose={onClose} wide>
      {chosen.length === 0 && <p>What was chosen is gone already: there is nothing to delete.</p>}
      {chosen.length > 0 && (
        <p class="line tight">
          {chosen.slice(0, 20).map((snapshot) => (
            <span key={snapshot.id} class="label">
              <Name of={snapshot.name} />
            </span>
          ))}
          {chosen.length > 20 && <span class="faint">and {chosen.length - 20} more</span>}
        </p>
      )}
      {plan.problem && <ProblemBox problem={plan.problem} onRetry={plan.refresh} />}
      {plan.data === undefined && !plan.problem && chosen.length > 0 && <Loading lines={8} />}
      {plan.data && (
        <>
          <p class="summary">
            <strong>{summary(plan.data)}</strong> The machine keeps running. From the first byte that is merged, {ids.length === 1 ? "this point in time is" : "these points in time are"} gone for good.
          </p>
          <Obstacles obstacles={obstacles(others, names)} />
          <PlanView changes={changes(plan.data, layers)} />
        </>
      )}
      {chosen.length > 0 && (
        <details>
          <summary>How it merges</summary>
          <Choice value={direction} label="Direction" options={DIRECTIONS} onChange={(value) => setDirection(value as typeof direction)} />
          <label class="field">
            <span>Limit: {limitWords(bytesPerSecond)}</span>
            <input type="range" min={0} max={UNLIMITED} value={place} aria-valuetext={limitWords(bytesPerSecond)} onInput={(event) => setPlace(Number(event.currentTarget.value))} />
          </label>
        </details>
      )}
      {chosen.length > 0 && <CommandBox commands={deleteSnapshots({ vm: vmId, snapshots: ids, requestId, direction, bytesPerSecond })} />}
      {locked.length > 0 && <Typed locked={locked} typed={typed} onTyped={setTyped} />}
      {problem && <ProblemBox problem={problem} />}
      <footer>
        <button type="button" onClick={onClose}>
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

function Typed({ locked, typed, onTyped }: { locked: readonly Snapshot[]; typed: string; onTyped: (typed: string) => void }) {
  const [first] = locked;
  return (
    <label class="field note">
      <span>
        {locked.length === 1 ? "It is protected" : `${locked.length} of them are protected`}. To take the protection off and delete, type the name{" "}
        <strong>
          <Name of={first?.name ?? ""} />
        </strong>
      </span>
      <input type="text" value={typed} autocomplete="off" spellcheck={false} onInput={(event) => onTyped(event.currentTarget.value)} />
    </label>
  );
}
