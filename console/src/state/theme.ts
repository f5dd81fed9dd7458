// Dark or light: as the system says, unless somebody has said otherwise here. It is no secret, so it may be kept.

import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const KEY = "livemerge.theme";

function kept(): Theme {
  try {
    const found = window.localStorage.getItem(KEY);
    return found === "light" || found === "dark" ? found : "system";
  } catch {
    return "system";
  }
}

export const theme = signal<Theme>(kept());

export function setTheme(next: Theme): void {
  theme.value = next;
  document.documentElement.dataset.theme = next;
  try {
    window.localStorage.setItem(KEY, next);
  } catch {
    // Then it lasts as long as the page.
  }
}

export function beginTheme(): void {
  document.documentElement.dataset.theme = theme.value;
}
