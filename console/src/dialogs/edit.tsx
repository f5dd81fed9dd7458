// Shows a snapshot; who may renames, describes, labels or protects it. Its data stay as they are.

import type { Problem } from "../api/problem";
import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import { Dialog } from "../ui/dialog";
import { ProblemBox } from "../ui/problem";
import { SnapshotFacts } from "./snapshot-facts";
import { SnapshotFields, isSound, type Draft } from "./snapshot-form";
import { freshId } from "../api/request-id";
import { mayChange } from "../session/session";
import { mutate } from "../api/mutate";
import { parseLabels, writeLabels } from "../logic/validate";
import { problemOf } from "../api/problem";
import { useApp } from "../state/app";
import { useMounted } from "../state/mounted";
import { useState } from "preact/hooks";

interface Props {
  readonly snapshot: Snapshot;
  readonly onClose: () => void;
  readonly onDone: () => void;
}

export function EditDialog({ snapshot, onClose, onDone }: Props) {
  const { clients } = useApp();
  // What it was when the dialog was opened: a change by somebody else meanwhile is refused, not overwritten.
  const [etag] = useState(snapshot.etag);
  const [draft, setDraft] = useState<Draft>({
    name: snapshot.name,
    description: snapshot.description,
    labels: writeLabels(snapshot.labels),
    deletionProtected: snapshot.deletionProtected,
  });
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const mounted = useMounted();
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(undefined);
    const { name, description, deletionProtected } = draft;
    const labels = { labels: parseLabels(draft.labels).labels };
    const request = { requestId: freshId(), snapshotId: snapshot.id, etag, name, description, labels, deletionProtected };
    try {
      await mutate(() => clients.snapshots.updateSnapshot(request));
      onDone();
      if (mounted.current) onClose();
    } catch (thrown) {
      setProblem(problemOf(thrown));
    }
    setBusy(false);
  };
  if (!mayChange()) {
    return (
      <Dialog title="A snapshot" onClose={onClose}>
        <SnapshotFacts snapshot={snapshot} all />
        <footer>
          <button type="button" onClick={onClose}>
            Close
          </button>
        </footer>
      </Dialog>
    );
  }
  return (
    <Dialog title="Change a snapshot" onClose={onClose} busy={busy}>
      <form onSubmit={(event) => void submit(event)}>
        <SnapshotFields draft={draft} onChange={setDraft} />
        <SnapshotFacts snapshot={snapshot} all={false} />
        {problem && <ProblemBox problem={problem} />}
        <footer>
          <button type="button" disabled={busy} onClick={onClose}>
            Leave it
          </button>
          <button type="submit" class="primary" disabled={!isSound(draft) || busy}>
            {busy ? "Asking…" : "Change it"}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
