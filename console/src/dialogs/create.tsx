// Takes a snapshot of all disks of a machine.

import type { Problem } from "../api/problem";
import { CommandBox } from "../ui/copy";
import { Dialog } from "../ui/dialog";
import { ProblemBox } from "../ui/problem";
import { Quiesce } from "../gen/livemerge/v1/quiesce_pb";
import { SnapshotFields, isSound, type Draft } from "./snapshot-form";
import { createSnapshot, type QuiesceWord } from "../logic/create-command";
import { freshId } from "../api/request-id";
import { mayChange } from "../session/session";
import { mutate } from "../api/mutate";
import { parseLabels } from "../logic/validate";
import { problemOf } from "../api/problem";
import { replace } from "../state/location";
import { useApp } from "../state/app";
import { useMounted } from "../state/mounted";
import { useState } from "preact/hooks";

const CHOICES: readonly (readonly [QuiesceWord, Quiesce, string, string])[] = [
  ["if-possible", Quiesce.IF_POSSIBLE, "If possible", "Frozen when the guest's agent answers in time; else the snapshot is as after a power cut."],
  ["required", Quiesce.REQUIRED, "Required", "Frozen, or no snapshot is taken."],
  ["never", Quiesce.NEVER, "Never", "The guest's agent is not asked: as after a power cut."],
];

export function CreateDialog({ vmId, onClose }: { vmId: string; onClose: () => void }) {
  const { clients, hub } = useApp();
  const [requestId, setRequestId] = useState(freshId);
  const [draft, setDraft] = useState<Draft>({ name: "", description: "", labels: "", deletionProtected: false });
  const [quiesce, setQuiesce] = useState<QuiesceWord>("if-possible");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const mounted = useMounted();
  const { labels } = parseLabels(draft.labels);
  // Another payload is another request.
  const change = (next: Draft, how: QuiesceWord = quiesce) => {
    setDraft(next);
    setQuiesce(how);
    setRequestId(freshId());
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(undefined);
    const { name, description, deletionProtected } = draft;
    const wanted = CHOICES.find(([word]) => word === quiesce)?.[1] ?? Quiesce.IF_POSSIBLE;
    const request = { requestId, vmId, name, description, labels, deletionProtected, quiesce: wanted };
    try {
      const { operation } = await mutate(() => clients.snapshots.createSnapshot(request));
      hub.look();
      if (!mounted.current) return;
      replace(operation ? { page: "operation", id: operation.id } : { page: "vm", id: vmId });
    } catch (thrown) {
      setProblem(problemOf(thrown));
    }
    setBusy(false);
  };
  return (
    <Dialog title="Take a snapshot" onClose={onClose} busy={busy}>
      <form onSubmit={(event) => void submit(event)}>
        <SnapshotFields draft={draft} onChange={(next) => change(next)} />
        <fieldset>
          <legend>Freeze the guest's file systems</legend>
          {CHOICES.map(([word, , title, text]) => (
            <label key={word} class="check">
              <input type="radio" name="quiesce" checked={quiesce === word} onChange={() => change(draft, word)} />
              <span>
                {title}
                <small class="faint">{text}</small>
              </span>
            </label>
          ))}
        </fieldset>
        <CommandBox commands={createSnapshot({ vm: vmId, ...draft, labels, quiesce, requestId })} />
        {problem && <ProblemBox problem={problem} />}
        <footer>
          <button type="button" disabled={busy} onClick={onClose}>
            Not now
          </button>
          <button type="submit" class="primary" disabled={!isSound(draft) || busy || !mayChange()}>
            {busy ? "Asking…" : "Take it"}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
