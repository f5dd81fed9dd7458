import { OperationKind, OperationState } from "../gen/livemerge/v1/operation_pb";
import { VmSchema, VmState } from "../gen/livemerge/v1/vm_pb";
import { byName, byTurn, filterOperations, filterVms, groupOf, statesOf, chosenOperations } from "./filter";
import { create } from "@bufbuild/protobuf";
import { deleteOf } from "../testing";
import { describe, expect, test } from "vitest";
import { moved, revealed, windowOf } from "./virtual";
import { points, sampled } from "./spark";

const vm = (name: string, hostId = "h1", state = VmState.RUNNING) => create(VmSchema, { id: `id-${name}`, name, hostId, state });
const ALL = { q: "", state: "", host: "" };

describe("filters", () => {
  const vms = [vm("Web 10"), vm("web 9", "h2", VmState.PAUSED), vm("<b>db</b>"), vm("Café")];
  test("every word is looked for in name, id and host", () => {
    expect(filterVms(vms, { ...ALL, q: "WEB h2" }).map((each) => each.name)).toEqual(["web 9"]);
    expect(filterVms(vms, { ...ALL, q: "cafe\u0301" }).map((each) => each.name)).toEqual(["Café"]);
    expect(filterVms(vms, { ...ALL, q: "<b>" })).toHaveLength(1);
    expect(filterVms(vms, { ...ALL, state: "paused" })).toHaveLength(1);
    expect(filterVms(vms, { ...ALL, host: "h2" })).toHaveLength(1);
    expect(filterVms(vms, ALL)).toHaveLength(4);
  });
  test("numbers in names are numbers", () => {
    expect(byName(vms).map((each) => each.name)).toEqual(["<b>db</b>", "Café", "web 9", "Web 10"]);
  });
  test("5,000 machines are searched within a frame or two", () => {
    const many = Array.from({ length: 5_000 }, (_, index) => vm(`vm-${index}`));
    const begun = performance.now();
    expect(filterVms(many, { ...ALL, q: "vm-4999" })).toHaveLength(1);
    expect(performance.now() - begun).toBeLessThan(100);
  });
  test("every state is in one tab, and a new one is shown as running", () => {
    expect(groupOf(OperationState.QUEUED)).toBe("queued");
    expect(groupOf(OperationState.UNSPECIFIED)).toBe("running");
    for (const group of ["queued", "running", "done"] as const) {
      for (const state of statesOf(group)) expect(groupOf(state)).toBe(group);
    }
  });
  test("operations are chosen by kind and by outcome", () => {
    const failed = deleteOf({ state: OperationState.FAILED });
    const taken = deleteOf({ kind: OperationKind.CREATE_SNAPSHOT, state: OperationState.SUCCEEDED });
    expect(chosenOperations([failed, taken], { kind: "", outcome: "" })).toHaveLength(2);
    expect(chosenOperations([failed, taken], { kind: "delete", outcome: "" })).toEqual([failed]);
    expect(chosenOperations([failed, taken], { kind: "", outcome: "done" })).toEqual([taken]);
    expect(chosenOperations([failed, taken], { kind: "delete", outcome: "done" })).toEqual([]);
  });
  test("operations are found by snapshot, machine, who and reason", () => {
    const operations = [deleteOf({ vmId: "v", requestedBy: "token:ann", failure: { reason: "VM_DIED" } }), deleteOf({ snapshotName: "other" })];
    const names = new Map([["v", "web 9"]]);
    for (const q of ["web", "ANN", "vm_died", "monday"]) expect(filterOperations(operations, q, names)).toHaveLength(1);
    expect(filterOperations(operations, "", names)).toHaveLength(2);
  });
});

describe("a window of a long list", () => {
  const view = { count: 5_000, rowHeight: 50, height: 600, overscan: 4 };
  test("the rows in sight and a few beyond; the rest is room", () => {
    for (const scrollTop of [0, 1, 777, 124_999, 249_400, 9e9, -50]) {
      const { first, end, before, after } = windowOf({ ...view, scrollTop });
      expect(end - first).toBeLessThanOrEqual(21);
      expect(before + after + (end - first) * 50).toBe(250_000);
      expect(first).toBeGreaterThanOrEqual(0);
      expect(end).toBeLessThanOrEqual(5_000);
    }
    expect(windowOf({ ...view, scrollTop: 9e9 }).end).toBe(5_000);
    expect(windowOf({ ...view, count: 0, scrollTop: 10 })).toEqual({ first: 0, end: 0, before: 0, after: 0 });
  });
  test("keys reach every row", () => {
    expect(moved("ArrowDown", 0, 10, 5)).toBe(1);
    expect(moved("ArrowUp", 0, 10, 5)).toBe(0);
    expect(moved("PageDown", 7, 10, 5)).toBe(9);
    expect(moved("End", 0, 10, 5)).toBe(9);
    expect(moved("Home", 9, 10, 5)).toBe(0);
    expect(moved("x", 3, 10, 5)).toBeUndefined();
    expect(moved("End", 0, 0, 5)).toBeUndefined();
  });
  test("no more is scrolled than is needed", () => {
    expect(revealed(3, { ...view, scrollTop: 0 })).toBe(0);
    expect(revealed(12, { ...view, scrollTop: 0 })).toBe(50);
    expect(revealed(2, { ...view, scrollTop: 500 })).toBe(100);
  });
});

describe("a sparkline", () => {
  test("keeps the last samples, one a moment", () => {
    let samples = sampled([], { at: 1, value: 5 }, 3);
    for (const at of [2, 3, 3, 4]) samples = sampled(samples, { at, value: at }, 3);
    expect(samples.map((sample) => sample.at)).toEqual([2, 3, 4]);
  });
  test("spans its box", () => {
    expect(points([{ at: 0, value: 0 }, { at: 10, value: 4 }], 100, 20)).toBe("0.0,20.0 100.0,0.0");
    expect(points([{ at: 0, value: 1 }], 100, 20)).toBe("");
    expect(points([{ at: 0, value: 0 }, { at: 0, value: 0 }], 100, 20)).toBe("0.0,20.0 0.0,20.0");
  });
});

test("what goes on stands before what waits, and that in the order of its turns", () => {
  const queued = (id: string, queuePosition: number) => deleteOf({ id, state: OperationState.QUEUED, waiting: { queuePosition } });
  const running = (id: string, seconds: number) => deleteOf({ id, createdAt: { seconds: BigInt(seconds) } });
  const order = byTurn([queued("d", 2), queued("c", 1), running("b", 20), running("a", 10)]);
  expect(order.map((operation) => operation.id)).toEqual(["a", "b", "c", "d"]);
});
