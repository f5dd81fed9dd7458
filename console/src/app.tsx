// The page of a route, inside the shell, behind the door.

import type { Clients } from "./api/clients";
import type { Route } from "./logic/route";
import { AppContext } from "./state/app";
import { EventsPage } from "./pages/events";
import { FindingsPage } from "./pages/findings";
import { HostsPage } from "./pages/hosts";
import { Loading } from "./ui/empty";
import { OperationPage } from "./pages/operation";
import { OperationsPage } from "./pages/operations";
import { ProblemBox } from "./ui/problem";
import { Shell } from "./ui/shell";
import { SignInPage } from "./pages/sign-in";
import { StoragePage } from "./pages/storage";
import { UnknownPage } from "./pages/unknown";
import { VmPage } from "./pages/vm";
import { VmsPage } from "./pages/vms";
import { createHub, type Hub } from "./watch/hub";
import { forgetAll } from "./state/resource";
import { refused, session, tokenNow } from "./session/session";
import { route } from "./state/location";
import { useArrival } from "./state/arrival";
import { useEffect, useState } from "preact/hooks";

export function App({ clients }: { clients: Clients }) {
  const state = session.value;
  if (state.kind === "sign-in") return <SignInPage clients={clients} problem={state.problem} />;
  if (state.kind === "in") return <Inside clients={clients} />;
  return (
    <main class="door">
      {state.kind === "away" ? <ProblemBox problem={state.problem} /> : <Loading />}
    </main>
  );
}

/** Watches for as long as somebody is in; what one has seen is not shown to the next. */
function Inside({ clients }: { clients: Clients }) {
  const [hub, setHub] = useState<Hub>();
  useEffect(() => {
    const shown = tokenNow();
    const own = createHub(clients, () => refused(undefined, shown));
    setHub(own);
    return () => {
      own.close();
      forgetAll();
    };
  }, [clients]);
  useArrival(route.value);
  if (hub === undefined) return null;
  return (
    <AppContext.Provider value={{ clients, hub }}>
      <Shell route={route.value}>
        <Page route={route.value} />
      </Shell>
    </AppContext.Provider>
  );
}

function Page({ route }: { route: Route }) {
  switch (route.page) {
    case "hosts":
      return <HostsPage />;
    case "vms":
      return <VmsPage route={route} />;
    case "vm":
      return <VmPage key={route.id} route={route} />;
    case "operations":
      return <OperationsPage route={route} />;
    case "operation":
      return <OperationPage key={route.id} id={route.id} />;
    case "events":
      return <EventsPage route={route} />;
    case "storage":
      return <StoragePage />;
    case "findings":
      return <FindingsPage route={route} />;
    case "unknown":
      return <UnknownPage />;
  }
}
