import type { ComponentChildren } from "preact";
import { href, type Route } from "../logic/route";

/** A link to a place of this page: it can be opened in a tab, copied and gone back from. */
export function Link({ to, class: kind, children, label }: { to: Route; class?: string; children: ComponentChildren; label?: string }) {
  return (
    <a href={href(to)} class={kind} aria-label={label}>
      {children}
    </a>
  );
}
