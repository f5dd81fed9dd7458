// What every component may use: the services, the watch, where one is.

import type { Clients } from "../api/clients";
import type { Hub } from "../watch/hub";
import { createContext } from "preact";
import { useContext } from "preact/hooks";

export interface App {
  readonly clients: Clients;
  readonly hub: Hub;
}

export const AppContext = createContext<App | undefined>(undefined);

export function useApp(): App {
  const app = useContext(AppContext);
  if (app === undefined) throw new Error("a component stands outside the app");
  return app;
}
