// Coming to another page: its name in the tab, its top in sight, and the keyboard at its content.

import type { Route } from "../logic/route";
import { pageName, samePage } from "../logic/route";
import { useEffect, useRef } from "preact/hooks";

export function useArrival(route: Route): void {
  const before = useRef<Route>();
  useEffect(() => {
    document.title = `${pageName(route)} – LiveMerge`;
    const moved = before.current !== undefined && !samePage(before.current, route);
    before.current = route;
    // A filter or a dialog is the same page: it keeps the place and the focus.
    if (!moved) return;
    window.scrollTo(0, 0);
    document.getElementById("main")?.focus({ preventScroll: true });
  }, [route]);
}
