// What went wrong, as the server says it. Branch on the reason; the text is for people.

import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb";
import { adviceFor } from "../logic/reasons";
import { seconds } from "../logic/time";

/** An error as it is shown. */
export interface Problem {
  /** Of the closed list; when the transport refused, the name of its code. */
  readonly reason: string;
  readonly code: Code;
  readonly message: string;
  readonly advice: string;
  /** The dynamic values of the text. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly fields: readonly { readonly field: string; readonly description: string }[];
  /** Seconds, when the server says so. */
  readonly retryAfter: number | undefined;
  /** The server's name for the call: stands in its log. */
  readonly requestId: string;
}

const LOST = "The server does not answer, or the way to it is cut. The page goes on trying.";

/** Makes a problem of whatever was thrown. */
export function problemOf(thrown: unknown): Problem {
  const error = ConnectError.from(thrown);
  const [info] = error.findDetails(ErrorInfoSchema).filter((info) => info.domain === "livemerge");
  const [retry] = error.findDetails(RetryInfoSchema);
  const fields = error.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations);
  const reason = info?.reason ?? Code[error.code].replace(/(?<=[a-z])(?=[A-Z])/gu, "_").toUpperCase();
  const network = info === undefined && isNetwork(error);
  return {
    reason: network ? "SERVER_UNREACHABLE" : reason,
    code: network ? Code.Unavailable : error.code,
    message: network ? LOST : error.rawMessage,
    advice: network ? "" : adviceFor(reason),
    metadata: info?.metadata ?? {},
    fields: fields.map(({ field, description }) => ({ field, description })),
    retryAfter: seconds(retry?.retryDelay),
    requestId: error.metadata.get("x-request-id") ?? "",
  };
}

/** A browser says little of a connection that failed: a `TypeError` from `fetch`. */
function isNetwork(error: ConnectError): boolean {
  return error.cause instanceof TypeError || (error.code === Code.Unknown && /fetch|network/iu.test(error.rawMessage));
}

/** What was refused because too much goes on: nothing was done. */
const CROWDED: ReadonlySet<string> = new Set(["SERVER_OVERLOADED", "WATCH_LIMIT_REACHED"]);

/** Whether the same call may be answered later. */
export function mayRepeat(problem: Problem): boolean {
  return problem.code === Code.Unavailable || CROWDED.has(problem.reason);
}

/** Whether it is worth to read again without being asked to: a call that took too long is one that costs much. */
export function comesBack(problem: Problem): boolean {
  return mayRepeat(problem) || problem.code === Code.DeadlineExceeded;
}

/** Whether the call shows that the caller must sign in. */
export function wantsSignIn(problem: Problem): boolean {
  return problem.code === Code.Unauthenticated;
}
