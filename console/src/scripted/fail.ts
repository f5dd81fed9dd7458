// Errors as the server makes them.

import { BadRequestSchema, ErrorInfoSchema } from "../gen/google/rpc/error_details_pb";
import { Code, ConnectError } from "@connectrpc/connect";

export function fail(code: Code, reason: string, message: string, metadata: Record<string, string> = {}): ConnectError {
  return new ConnectError(message, code, undefined, [{ desc: ErrorInfoSchema, value: { reason, domain: "livemerge", metadata } }]);
}

export function badField(field: string, description: string): ConnectError {
  return new ConnectError("a field is bad", Code.InvalidArgument, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "FIELD_INVALID", domain: "livemerge", metadata: {} } },
    { desc: BadRequestSchema, value: { fieldViolations: [{ field, description }] } },
  ]);
}

export function missing(what: "HOST" | "VM" | "SNAPSHOT" | "OPERATION" | "REMOVAL"): ConnectError {
  return fail(Code.NotFound, `${what}_NOT_FOUND`, `there is no such ${what.toLowerCase()}`);
}
