// What the caller may do. No method of the API says it, so a change is asked for that can never be made: the
// server looks at the role before it looks at the request, and refuses the empty id after that.

import type { Clients } from "../api/clients";
import { Code } from "@connectrpc/connect";
import { comesBack, problemOf, wantsSignIn, type Problem } from "../api/problem";

/** `unknown` may try: the server refuses what is not allowed. */
export type Role = "operator" | "viewer" | "unknown";

export type Entry =
  | { readonly kind: "in"; readonly role: Role }
  | { readonly kind: "sign-in"; readonly problem: Problem }
  | { readonly kind: "away"; readonly problem: Problem };

export function roleOf(problem: Problem): Role {
  if (problem.code === Code.PermissionDenied) return "viewer";
  return problem.reason === "FIELD_INVALID" ? "operator" : "unknown";
}

/** Tries the door. */
export async function enter(clients: Clients): Promise<Entry> {
  try {
    await clients.inventory.listHosts({ pageSize: 1 });
  } catch (thrown) {
    const problem = problemOf(thrown);
    return wantsSignIn(problem) || problem.code === Code.PermissionDenied ? { kind: "sign-in", problem } : { kind: "away", problem };
  }
  try {
    await clients.operations.cancelOperation({ operationId: "" });
    return { kind: "in", role: "unknown" };
  } catch (thrown) {
    const problem = problemOf(thrown);
    if (wantsSignIn(problem)) return { kind: "sign-in", problem };
    return comesBack(problem) ? { kind: "away", problem } : { kind: "in", role: roleOf(problem) };
  }
}
