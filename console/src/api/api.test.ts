import { Code, ConnectError } from "@connectrpc/connect";
import { World } from "../scripted/world";
import { clientsOf } from "./clients";
import { badField, fail } from "../scripted/fail";
import { enter } from "../session/role";
import { expect, test } from "vitest";
import { freshId } from "./request-id";
import { mutate } from "./mutate";
import { comesBack, mayRepeat, problemOf } from "./problem";
import { readPages } from "./pages";
import { transportOf } from "../scripted/transport";

const SMALL = { vms: 3, snapshots: 4 };
const door = { tokens: new Map([["look", "viewer"], ["change", "operator"]] as const) };
const caller = (token: string) => clientsOf(transportOf(new World(SMALL), door, () => token));

test("the reason, the values and the advice of an error", () => {
  const problem = problemOf(fail(Code.FailedPrecondition, "SNAPSHOT_PROTECTED", "it is protected", { snapshot: "<b>" }));
  expect(problem).toMatchObject({ reason: "SNAPSHOT_PROTECTED", message: "it is protected", metadata: { snapshot: "<b>" } });
  expect(problem.advice).toContain("protection");
});

test("every bad field is named", () => {
  expect(problemOf(badField("name", "too long")).fields).toEqual([{ field: "name", description: "too long" }]);
});

test("what the transport refuses has its code for a reason", () => {
  expect(problemOf(new ConnectError("no such method", Code.Unimplemented)).reason).toBe("UNIMPLEMENTED");
  expect(problemOf(new ConnectError("no", Code.FailedPrecondition)).reason).toBe("FAILED_PRECONDITION");
});

test("a cut line is one that comes back", () => {
  const problem = problemOf(ConnectError.from(new TypeError("Failed to fetch")));
  expect(problem).toMatchObject({ reason: "SERVER_UNREACHABLE", code: Code.Unavailable });
});

test("a reason of somebody else's domain is not taken for ours", async () => {
  const { ErrorInfoSchema } = await import("../gen/google/rpc/error_details_pb");
  const error = new ConnectError("x", Code.Internal, undefined, [{ desc: ErrorInfoSchema, value: { reason: "VM_DIED", domain: "elsewhere" } }]);
  expect(problemOf(error).reason).toBe("INTERNAL");
});

test("the door tells who may do what", async () => {
  expect(await enter(caller("change"))).toEqual({ kind: "in", role: "operator" });
  expect(await enter(caller("look"))).toEqual({ kind: "in", role: "viewer" });
  expect(await enter(caller("wrong"))).toMatchObject({ kind: "sign-in", problem: { reason: "CREDENTIALS_INVALID" } });
  expect(await enter(caller(""))).toMatchObject({ kind: "sign-in", problem: { reason: "CREDENTIALS_MISSING" } });
  expect(await enter(clientsOf(transportOf(new World(SMALL))))).toEqual({ kind: "in", role: "operator" });
});

test("a change is asked for again with the same call, and only while that may help", async () => {
  const pauses: number[] = [];
  const wait = (ms: number) => Promise.resolve(void pauses.push(ms));
  let calls = 0;
  const call = () => {
    calls += 1;
    return calls < 3 ? Promise.reject(fail(Code.Unavailable, "SERVER_DRAINING", "stops")) : Promise.resolve("done");
  };
  expect(await mutate(call, wait)).toBe("done");
  expect(pauses).toHaveLength(2);
  calls = 0;
  const no = () => {
    calls += 1;
    return Promise.reject(fail(Code.Aborted, "ETAG_MISMATCH", "changed"));
  };
  await expect(mutate(no, wait)).rejects.toThrow();
  expect(calls).toBe(1);
});

test("what may help is told by the code and the reason", () => {
  const problem = (code: Code, reason: string) => problemOf(fail(code, reason, ""));
  expect(mayRepeat(problem(Code.ResourceExhausted, "SERVER_OVERLOADED"))).toBe(true);
  expect(mayRepeat(problem(Code.ResourceExhausted, "INSUFFICIENT_SPACE"))).toBe(false);
  expect(mayRepeat(problem(Code.DeadlineExceeded, "DEADLINE_EXCEEDED"))).toBe(false);
  expect(comesBack(problem(Code.DeadlineExceeded, "DEADLINE_EXCEEDED"))).toBe(true);
  expect(comesBack(problem(Code.NotFound, "VM_NOT_FOUND"))).toBe(false);
});

test("a role that could not be told is asked for again: a viewer gets no live buttons meanwhile", async () => {
  const { operations, ...others } = caller("look");
  const busy = { ...others, operations: { ...operations, cancelOperation: () => Promise.reject(fail(Code.Unavailable, "STORE_UNAVAILABLE", "busy")) } };
  expect(await enter(busy)).toMatchObject({ kind: "away", problem: { reason: "STORE_UNAVAILABLE" } });
});

test("pages are read to the end, or to what was wanted", async () => {
  const page = (token: string) => Promise.resolve({ items: [Number(token)], next: token === "4" ? "" : String(Number(token) + 1) });
  expect(await readPages(page)).toEqual({ items: [0, 1, 2, 3, 4], complete: true });
  expect(await readPages(page, 3)).toEqual({ items: [0, 1, 2], complete: false });
});

test("ids are UUIDs, and no two are the same", () => {
  const ids = Array.from({ length: 100 }, freshId);
  expect(new Set(ids).size).toBe(100);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u);
});
