// @vitest-environment happy-dom
import { afterEach, expect, test } from "vitest";
import { World } from "../scripted/world";
import { clientsOf } from "../api/clients";
import { handover } from "./handover";
import { hasToken, refused, session, signIn, signOut, start, tokenNow } from "./session";
import { keptToken } from "./keep";
import { transportOf } from "../scripted/transport";

const door = { tokens: new Map([["look", "viewer"], ["change", "operator"]] as const) };
const clients = clientsOf(transportOf(new World({ vms: 1, snapshots: 1 }), door, tokenNow));

afterEach(() => signOut());

test("an answer about an earlier token does not sign the new one out", async () => {
  await signIn(clients, "look", false);
  signOut();
  await signIn(clients, "change", false);
  refused(undefined, "look");
  expect(session.value).toEqual({ kind: "in", role: "operator" });
  refused(undefined, "change");
  expect(session.value.kind).toBe("sign-in");
  expect(hasToken.value).toBe(false);
});

test.each([true, false])("a token that another tab hands over is kept as there: %s", async (keep) => {
  const other = handover(
    () => ({ token: "change", keep }),
    () => undefined,
  );
  await start(clients);
  other.close();
  expect(session.value).toEqual({ kind: "in", role: "operator" });
  expect(keptToken()).toBe(keep ? "change" : "");
});
