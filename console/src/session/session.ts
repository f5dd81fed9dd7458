// Who is in, and with what token.
//
//   starting ─▶ kept token, another tab's, or none ─▶ the door ─┬─▶ in(role)
//       ▲                                                      ├─▶ sign-in(problem)
//       └── tries again ◀── away(problem) ◀────────────────────┘

import type { Clients } from "../api/clients";
import type { Problem } from "../api/problem";
import { enter, type Role } from "./role";
import { forgetToken, keepToken, keptToken } from "./keep";
import { handover } from "./handover";
import { signal } from "@preact/signals";

export type State =
  | { readonly kind: "starting" }
  | { readonly kind: "in"; readonly role: Role }
  | { readonly kind: "sign-in"; readonly problem: Problem | undefined }
  | { readonly kind: "away"; readonly problem: Problem };

const AGAIN_MS = 2_000;

let token = "";
export const session = signal<State>({ kind: "starting" });
/** The token of the moment, for the header of a call. */
export const tokenNow = (): string => token;
/** Whether there is anything to sign out of. */
export const hasToken = signal(false);

/** Whether buttons that change something are for this caller. */
export function mayChange(): boolean {
  const state = session.value;
  return state.kind === "in" && state.role !== "viewer";
}

function have(next: string): void {
  token = next;
  hasToken.value = next !== "";
}

const others = handover(
  () => ({ token, keep: keptToken() === token }),
  () => leave(undefined),
);

function leave(problem: Problem | undefined): void {
  have("");
  forgetToken();
  session.value = { kind: "sign-in", problem };
}

/** Begins: whatever token there is, or none, which a server without roles takes. */
export async function start(clients: Clients): Promise<void> {
  have(keptToken());
  if (token === "") await takeOver();
  await tryDoor(clients);
}

async function takeOver(): Promise<void> {
  const other = await others.ask();
  have(other.token);
  if (other.keep) keepToken(other.token);
}

async function tryDoor(clients: Clients): Promise<void> {
  const entry = await enter(clients);
  // A first look without a token is no failure to be told.
  session.value = entry.kind === "sign-in" && token === "" ? { kind: "sign-in", problem: undefined } : entry;
  if (entry.kind === "away") setTimeout(() => void tryDoor(clients), AGAIN_MS);
}

export async function signIn(clients: Clients, wanted: string, keep: boolean): Promise<void> {
  have(wanted);
  const entry = await enter(clients);
  if (entry.kind === "in") {
    if (keep) keepToken(wanted);
    session.value = entry;
  } else {
    have("");
    session.value = { kind: "sign-in", problem: entry.problem };
  }
}

export function signOut(): void {
  others.out();
  leave(undefined);
}

/**
 * The server no longer takes a token: the page stays where it is, behind the sign-in. `shown` is the one that the
 * call had: an answer that comes late may be about an earlier one.
 */
export function refused(problem: Problem | undefined, shown: string): void {
  if (shown === token) leave(problem);
}
