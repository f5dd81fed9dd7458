// An error: what happened, what can be done, and the reason to search for.

import type { ComponentChildren } from "preact";
import type { Problem } from "../api/problem";
import { Code } from "./text";
import { visible } from "../logic/text";

export function ProblemBox({ problem, onRetry }: { problem: Problem; onRetry?: () => void }) {
  const metadata = Object.entries(problem.metadata);
  return (
    <div class="problem" role="alert">
      <p>
        <strong>{problem.reason}</strong> <bdi>{visible(problem.message)}</bdi>
      </p>
      {problem.fields.length > 0 && (
        <ul>
          {problem.fields.map(({ field, description }) => (
            <li key={field}>
              <Code of={field} /> {visible(description)}
            </li>
          ))}
        </ul>
      )}
      {problem.advice !== "" && <p>{problem.advice}</p>}
      {(metadata.length > 0 || problem.requestId !== "") && (
        <details>
          <summary>Details</summary>
          <dl class="facts">
            {metadata.map(([name, value]) => (
              <Fact key={name} name={name} value={value} />
            ))}
            {problem.requestId !== "" && <Fact name="call" value={problem.requestId} />}
          </dl>
        </details>
      )}
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Fact({ name, value }: { name: string; value: string }) {
  return (
    <>
      <dt>{visible(name)}</dt>
      <dd>
        <Code of={value} />
      </dd>
    </>
  );
}

/** Why an operation failed, or why it waits. */
interface Reason {
  readonly reason: string;
  readonly message: string;
  readonly advice: string;
  /** It is no failure: what it names is waited for. */
  readonly calm?: boolean;
  readonly children?: ComponentChildren;
}

export function ReasonBox({ reason, message, advice, calm = false, children }: Reason) {
  return (
    <div class={calm ? "waits" : "problem"}>
      <p>
        <strong>{reason}</strong> <bdi>{visible(message)}</bdi>
      </p>
      {advice !== "" && <p>{advice}</p>}
      {children}
    </div>
  );
}
