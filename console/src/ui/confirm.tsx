// Asks before a change, says what it does, and shows what came of it.

import type { ComponentChildren } from "preact";
import { Dialog } from "./dialog";
import { ProblemBox } from "./problem";
import { mutate } from "../api/mutate";
import { problemOf, type Problem } from "../api/problem";
import { freshId } from "../api/request-id";
import { useState } from "preact/hooks";

interface Props {
  readonly title: string;
  readonly verb: string;
  readonly danger?: boolean;
  readonly dismiss?: string;
  readonly children: ComponentChildren;
  /** Does it. Answers what is to be read then. */
  readonly act: (requestId: string) => Promise<ComponentChildren>;
  readonly onClose: () => void;
}

export function Confirm({ title, verb, danger = false, dismiss = "Not now", children, act, onClose }: Props) {
  const [requestId] = useState(freshId);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const [result, setResult] = useState<ComponentChildren>();
  const run = async () => {
    setBusy(true);
    setProblem(undefined);
    try {
      setResult(await mutate(() => act(requestId)));
    } catch (thrown) {
      setProblem(problemOf(thrown));
    }
    setBusy(false);
  };
  const done = result !== undefined;
  return (
    <Dialog title={title} onClose={onClose} busy={busy}>
      {done ? <div role="status">{result}</div> : children}
      {problem && <ProblemBox problem={problem} />}
      <footer>
        <button type="button" disabled={busy} onClick={onClose}>
          {done ? "Close" : dismiss}
        </button>
        {!done && (
          <button type="button" class={danger ? "danger" : "primary"} disabled={busy} onClick={() => void run()}>
            {busy ? "Working…" : verb}
          </button>
        )}
      </footer>
    </Dialog>
  );
}
