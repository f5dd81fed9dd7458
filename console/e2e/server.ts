// Serves the built page, with the headers that the README asks for, over the scripted backend.

import { World, type Size } from "../src/scripted/world";
import { admit, services, type Door } from "../src/scripted/services";
import { callsOf } from "./wire";
import { createServer, type Server, type ServerResponse } from "node:http";
import { extname, join, normalize } from "node:path";
import { readFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";

const DIST = join(import.meta.dirname, "../dist");

export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};

export const OPEN_DOOR: Door = { tokens: new Map() };
export const ROLES: Door = { tokens: new Map([["look", "viewer"], ["change", "operator"]] as const) };

/** A backend that can be stopped and started again, as a server that is killed. */
export class Backend {
  #server: Server | undefined;
  #port = 0;
  readonly world: World;
  /** How often each method was called. */
  readonly calls = new Map<string, number>();

  constructor(
    size: Size,
    readonly door: Door = OPEN_DOOR,
  ) {
    this.world = new World(size);
  }

  /** How many watches are open. */
  get watching(): number {
    return this.world.listeners.size;
  }

  get address(): string {
    return `http://127.0.0.1:${this.#port}/`;
  }

  async start(): Promise<void> {
    const calls = callsOf(services(this.world), [
      (next) => (request) => {
        const { name } = request.method;
        this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
        admit(this.door, name, request.header.get("authorization"));
        return next(request);
      },
    ]);
    const server = createServer((request, response) => {
      if (!calls(request, response)) void file(request.url ?? "/", response);
    });
    this.#server = server;
    await new Promise<void>((done) => server.listen(this.#port, "127.0.0.1", done));
    this.#port = (server.address() as AddressInfo).port;
  }

  /** All at once, in the middle of whatever there is. */
  async kill(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = new Promise((done) => server.close(done));
    server.closeAllConnections();
    await closed;
  }
}

async function file(url: string, response: ServerResponse): Promise<void> {
  const path = new URL(url, "http://page").pathname;
  const name = path === "/" ? "/index.html" : normalize(path);
  try {
    const content = await readFile(join(DIST, name));
    response.writeHead(200, {
      "content-type": TYPES[extname(name)] ?? "application/octet-stream",
      "content-security-policy": POLICY,
      "x-content-type-options": "nosniff",
      "cache-control": name === "/index.html" ? "no-cache" : "public, max-age=31536000, immutable",
    });
    response.end(content);
  } catch {
    response.writeHead(404).end();
  }
}
