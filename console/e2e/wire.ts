// gRPC-Web over HTTP/1.1 for the scripted services: what the page talks to is a server, with a wire between.

import type { ConnectRouter, Interceptor } from "@connectrpc/connect";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createConnectRouter } from "@connectrpc/connect";

/** Answers a call; false when the path names none. */
export type Calls = (request: IncomingMessage, response: ServerResponse) => boolean;

export function callsOf(routes: (router: ConnectRouter) => void, interceptors: Interceptor[]): Calls {
  const router = createConnectRouter({ grpc: false, connect: false, interceptors });
  routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return (request, response) => {
    const handler = handlers.get(request.url ?? "");
    if (handler === undefined) return false;
    void answer(handler, request, response);
    return true;
  };
}

type Handler = ConnectRouter["handlers"][number];

async function answer(handler: Handler, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  try {
    const { status, header, body } = await handler({
      httpVersion: "1.1",
      url: `http://${request.headers.host}${request.url}`,
      method: request.method ?? "POST",
      header: new Headers(Object.entries(request.headers).map(([name, value]): [string, string] => [name, String(value)])),
      body: request,
      signal: gone.signal,
    });
    response.writeHead(status, Object.fromEntries(header ?? []));
    for await (const piece of body ?? []) response.write(piece);
    response.end();
  } catch {
    // The page has gone, or the server has been stopped: there is nobody to tell.
    response.destroy();
  }
}
