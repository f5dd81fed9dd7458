// The fields that a new and a changed snapshot have in common.

import { descriptionProblem, nameProblem, parseLabels } from "../logic/validate";

export interface Draft {
  readonly name: string;
  readonly description: string;
  readonly labels: string;
  readonly deletionProtected: boolean;
}

/** Whether the server would take the fields. */
export function isSound({ name, description, labels }: Draft): boolean {
  return nameProblem(name) === "" && descriptionProblem(description) === "" && parseLabels(labels).problem === "";
}

export function SnapshotFields({ draft, onChange }: { draft: Draft; onChange: (draft: Draft) => void }) {
  const nameWrong = draft.name === "" ? "" : nameProblem(draft.name);
  return (
    <>
      <label class="field">
        <span>Name</span>
        <input type="text" data-first dir="auto" required value={draft.name} aria-invalid={nameWrong !== ""} onInput={(event) => onChange({ ...draft, name: event.currentTarget.value })} />
        <small class="wrong">{nameWrong}</small>
      </label>
      <label class="field">
        <span>Description</span>
        <textarea dir="auto" rows={2} value={draft.description} onInput={(event) => onChange({ ...draft, description: event.currentTarget.value })} />
        <small class="wrong">{descriptionProblem(draft.description)}</small>
      </label>
      <label class="field">
        <span>Labels, one key=value a line</span>
        <textarea rows={2} spellcheck={false} value={draft.labels} onInput={(event) => onChange({ ...draft, labels: event.currentTarget.value })} />
        <small class="wrong">{parseLabels(draft.labels).problem}</small>
      </label>
      <label class="check">
        <input type="checkbox" checked={draft.deletionProtected} onChange={(event) => onChange({ ...draft, deletionProtected: event.currentTarget.checked })} />
        <span>Protected: a delete is refused until this is taken off</span>
      </label>
    </>
  );
}
