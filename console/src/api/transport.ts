// The way to the server: gRPC-Web on the page's own origin.

import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { freshId } from "./request-id";

/** Longer than any unary call of ours takes; streams and waits say 0: none. */
export const CALL_MS = 30_000;

/** Shows the token of the moment, in the header and nowhere else, and gives each call a name. */
export function identified(token: () => string): Interceptor {
  return (next) => (request) => {
    const shown = token();
    if (shown !== "") request.header.set("authorization", `Bearer ${shown}`);
    request.header.set("x-request-id", freshId());
    return next(request);
  };
}

export function webTransport(token: () => string): Transport {
  return createGrpcWebTransport({
    baseUrl: location.origin,
    defaultTimeoutMs: CALL_MS,
    interceptors: [identified(token)],
  });
}
