// A backend inside the page, for development and tests. A build for production does not have it.

import type { Transport } from "@connectrpc/connect";
import { FULL, World } from "./world";
import { admit, services, type Door } from "./services";
import { advance } from "./merge";
import { createRouterTransport } from "@connectrpc/connect";
import { identified } from "../api/transport";
import { tokenNow } from "../session/session";

const STEP_MS = 500;

export function transportOf(world: World, door: Door = { tokens: new Map() }, token: () => string = () => ""): Transport {
  return createRouterTransport(services(world), {
    transport: {
      interceptors: [
        identified(token),
        (next) => (request) => {
          admit(door, request.method.name, request.header.get("authorization"));
          return next(request);
        },
      ],
    },
  });
}

/** `?scripted`: 5,000 machines, 500 snapshots of the first one. `?scripted=roles` asks for a token. */
export function scriptedTransport(): Transport {
  const world = new World(FULL);
  setInterval(() => advance(world, STEP_MS / 1000), STEP_MS);
  const roles = new URLSearchParams(location.search).get("scripted") === "roles";
  const tokens = new Map(roles ? ([["look", "viewer"], ["change", "operator"]] as const) : []);
  return transportOf(world, { tokens }, tokenNow);
}
