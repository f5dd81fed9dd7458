// The console: a gRPC-Web client of the public API, and nothing else.

import "./styles/index.css";
import { App } from "./app";
import { beginTheme } from "./state/theme";
import { clientsOf } from "./api/clients";
import { render } from "preact";
import { start, tokenNow } from "./session/session";
import { webTransport } from "./api/transport";
import type { Transport } from "@connectrpc/connect";

/** In development `?scripted` has a backend in the page. The condition is a constant, so no build carries it. */
async function transport(): Promise<Transport> {
  if (import.meta.env.DEV && new URLSearchParams(location.search).has("scripted")) {
    const { scriptedTransport } = await import("./scripted/transport");
    return scriptedTransport();
  }
  return webTransport(tokenNow);
}

beginTheme();
const clients = clientsOf(await transport());
const root = document.getElementById("app");
if (root) render(<App clients={clients} />, root);
void start(clients);
