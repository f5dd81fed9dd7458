// What came of a read that failed, where its answer would stand. That the server cannot be reached stands over the
// page already.

import type { Problem } from "../api/problem";
import { ProblemBox } from "./problem";
import { isSaidOnce } from "../state/reach";

export function ReadProblem({ problem, onRetry }: { problem: Problem | undefined; onRetry?: () => void }) {
  if (problem === undefined || isSaidOnce(problem)) return null;
  return <ProblemBox problem={problem} {...(onRetry && { onRetry })} />;
}
