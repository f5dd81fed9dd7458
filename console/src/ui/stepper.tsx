import type { Step } from "../logic/progress";

const SAID = { done: "done", now: "under way", next: "to come", failed: "ended here" } as const;

/** From acceptance to end. */
export function Stepper({ steps }: { steps: readonly Step[] }) {
  return (
    <ol class="stepper" aria-label="Steps">
      {steps.map(({ name, state }) => (
        <li key={name} class={state} aria-current={state === "now" ? "step" : undefined}>
          <span class="dot" aria-hidden="true" />
          {name}
          <span class="unseen">, {SAID[state]}</span>
        </li>
      ))}
    </ol>
  );
}
