// Where a token is between reloads: in this tab's session, or nowhere. Never in a URL, never in local storage.

const KEY = "livemerge.token";

/** What of a tab's storage is used; it may be forbidden. */
type Kept = Pick<Storage, "getItem" | "setItem" | "removeItem">;

function session(): Kept | undefined {
  try {
    return window.sessionStorage;
  } catch {
    return undefined;
  }
}

export function keptToken(): string {
  return session()?.getItem(KEY) ?? "";
}

export function keepToken(token: string): void {
  session()?.setItem(KEY, token);
}

export function forgetToken(): void {
  session()?.removeItem(KEY);
}
