// What stands around every page: the way to the others, how fresh it all is, who one is.

import type { ComponentChildren } from "preact";
import type { Freshness } from "../watch/reducer";
import { Link } from "./link";
import { PLACES, type Route } from "../logic/route";
import { hasToken, session, signOut } from "../session/session";
import { setTheme, theme, type Theme } from "../state/theme";
import { unreachable } from "../state/reach";
import { useApp } from "../state/app";
import { useEffect, useRef } from "preact/hooks";

const NAV = [
  ["hosts", "Hosts"],
  ["vms", "Machines"],
  ["operations", "Operations"],
  ["events", "Audit log"],
  ["storage", "Storage"],
  ["findings", "Consistency"],
] as const;

/** A machine's page belongs to the machines, an operation's to the operations. */
function placeOf(route: Route): string {
  return route.page === "vm" ? "vms" : route.page === "operation" ? "operations" : route.page;
}

export function Shell({ route, children }: { route: Route; children: ComponentChildren }) {
  const { hub } = useApp();
  const here = placeOf(route);
  const running = hub.open.value?.length ?? 0;
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    // On a narrow screen the pages are a strip: the present one is to be seen on it.
    nav.current?.querySelector(".here")?.scrollIntoView({ inline: "center", block: "nearest" });
  }, [here]);
  const toMain = (event: Event) => {
    // A link to `#main` would be a route.
    event.preventDefault();
    document.getElementById("main")?.focus();
  };
  return (
    <>
      <header class="top">
        <a class="skip" href="#/" onClick={toMain}>
          To the content
        </a>
        <Link to={PLACES.vms} class="brand">
          LiveMerge
        </Link>
        <nav ref={nav} aria-label="Pages">
          {NAV.map(([page, words]) => (
            <a key={page} href={`#/${page}`} class={page === here ? "here" : ""} aria-current={page === here ? "page" : undefined}>
              {words}
              {page === "operations" && running > 0 && <span class="many">{running}</span>}
            </a>
          ))}
        </nav>
        <div class="state">
          <LiveMark freshness={hub.freshness.value} reason={hub.watch.value.reason} />
          <Role />
          <ThemeSwitch />
          {hasToken.value && (
            <button type="button" class="quiet" onClick={signOut}>
              Sign out
            </button>
          )}
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {(unreachable.value || hub.freshness.value === "stale") && (
          <p class="stale" role="status">
            The server has not been heard for a while{hub.watch.value.reason && ` (${hub.watch.value.reason})`}: what is shown may be old. What was accepted goes on; the page
            recovers by itself.
          </p>
        )}
        {children}
      </main>
    </>
  );
}

const MARKS: Record<Freshness, string> = { connecting: "connecting", live: "live", stale: "stale" };

function LiveMark({ freshness, reason }: { freshness: Freshness; reason: string }) {
  return (
    <span class={`mark ${freshness}`} title={reason}>
      <span class="dot" aria-hidden="true" />
      {MARKS[freshness]}
    </span>
  );
}

function Role() {
  const state = session.value;
  return state.kind === "in" && state.role === "viewer" ? <span class="badge calm">viewer</span> : null;
}

function ThemeSwitch() {
  return (
    <select class="quiet" aria-label="Colours" value={theme.value} onChange={(event) => setTheme(event.currentTarget.value as Theme)}>
      <option value="system">System</option>
      <option value="light">Light</option>
      <option value="dark">Dark</option>
    </select>
  );
}
