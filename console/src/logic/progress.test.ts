import { MergeKind, MergePhase } from "../gen/livemerge/v1/merge_pb";
import { OperationKind, OperationPhase, OperationState } from "../gen/livemerge/v1/operation_pb";
import { cancelRefusal, dirtyBytes, fraction, gaveUp, guestWrote, hasEnded, steps, takesLimit, totals, underWay } from "./progress";
import { deleteOf, diskOf } from "../testing";
import { expect, test } from "vitest";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";

const active = { kind: MergeKind.ACTIVE_COMMIT };
const merging = (...disks: ReturnType<typeof diskOf>[]) => deleteOf({ phase: OperationPhase.MERGING, disks });
const now = (operation: ReturnType<typeof deleteOf>) => steps(operation).find((step) => step.state === "now")?.name;

test("a part of what is known, and nothing while nothing is", () => {
  expect(fraction(diskOf({ phase: MergePhase.COPYING, doneBytes: 25n, totalBytes: 100n }))).toBe(0.25);
  expect(fraction(diskOf({ phase: MergePhase.COPYING }))).toBeUndefined();
  expect(fraction(diskOf({ phase: MergePhase.PENDING }))).toBe(0);
  expect(fraction(diskOf({ phase: MergePhase.COPYING, doneBytes: 200n, totalBytes: 100n }))).toBe(1);
  expect(fraction(diskOf({ phase: MergePhase.REMOVED }))).toBe(1);
});

test("what the guest writes meanwhile is told from the plan", () => {
  const disk = diskOf({ phase: MergePhase.COPYING, doneBytes: 60n, totalBytes: 130n, plannedBytes: 100n });
  expect(guestWrote(disk)).toBe(30);
  expect(dirtyBytes(disk)).toBe(70);
});

test("the sums follow all disks, the time the slowest of them", () => {
  const operation = merging(
    diskOf({ phase: MergePhase.COPYING, doneBytes: 10n, totalBytes: 100n, bytesPerSecond: 5n, timeLeft: { seconds: 18n } }),
    diskOf({ disk: "vdb", phase: MergePhase.COPYING, doneBytes: 50n, totalBytes: 100n, bytesPerSecond: 7n, timeLeft: { seconds: 7n } }),
    diskOf({ disk: "vdc", phase: MergePhase.PENDING, plannedBytes: 40n }),
    diskOf({ disk: "vdd", phase: MergePhase.REMOVED, doneBytes: 1n, totalBytes: 20n, freedBytes: 20n }),
  );
  expect(totals(operation)).toEqual({ done: 80, total: 260, rate: 12, left: 18, freed: 20 });
});

test("later rounds take the time that was planned for them", () => {
  const copying = diskOf({ phase: MergePhase.COPYING, timeLeft: { seconds: 20n } });
  const later = (round: number, time: number) => diskOf({ round, phase: MergePhase.PENDING, plannedTime: { seconds: BigInt(time) } });
  expect(totals(merging(copying, later(1, 60), later(1, 90), later(2, 5))).left).toBe(115);
  expect(totals(merging(diskOf({ phase: MergePhase.REMOVING }), later(1, 60))).left).toBe(60);
  expect(totals(merging(copying, diskOf({ round: 1, phase: MergePhase.PENDING }))).left).toBeUndefined();
  expect(totals(merging(diskOf({ phase: MergePhase.REMOVED }))).left).toBeUndefined();
});

test("of a merge that came to nothing no bytes are known, and none are counted", () => {
  for (const phase of [MergePhase.FAILED, MergePhase.CANCELLED]) {
    const ended = diskOf({ phase, plannedBytes: 100n });
    expect(gaveUp(ended)).toBe(true);
    expect(totals(merging(ended, diskOf({ disk: "vdb", phase: MergePhase.COPYING, doneBytes: 5n, totalBytes: 10n })))).toMatchObject({ done: 5, total: 10 });
  }
  expect(gaveUp(diskOf({ phase: MergePhase.REMOVED }))).toBe(false);
});

test("steps that an operation does not have are left out", () => {
  const names = (kind: MergeKind) => steps(merging(diskOf({ kind }))).map((step) => step.name);
  expect(names(MergeKind.ACTIVE_COMMIT)).toContain("Switch the guest");
  expect(names(MergeKind.PULL)).toEqual(["Queue", "Plan", "Copy", "Verify", "Remove volumes", "Done"]);
  expect(steps(deleteOf({ kind: OperationKind.CREATE_SNAPSHOT })).map((step) => step.name)).toEqual(["Queue", "Plan", "Create overlays", "Done"]);
});

test.each([
  [MergePhase.PENDING, "Copy"],
  [MergePhase.COPYING, "Copy"],
  [MergePhase.OVERLAYING, "Copy"],
  [MergePhase.READY, "Caught up"],
  [MergePhase.PIVOTING, "Switch the guest"],
  [MergePhase.VERIFYING, "Verify"],
])("phase %i stands at %s", (phase, name) => expect(now(merging(diskOf({ ...active, phase })))).toBe(name));

test("the disk that is furthest behind tells", () => {
  expect(now(merging(diskOf({ ...active, phase: MergePhase.READY }), diskOf({ disk: "vdb", ...active, phase: MergePhase.COPYING })))).toBe("Copy");
});

test.each([MergePhase.READY, MergePhase.PIVOTING])("a pull copies until it is verified, also in phase %i", (phase) => {
  const pull = diskOf({ kind: MergeKind.PULL, phase });
  expect(now(merging(pull))).toBe("Copy");
  expect(now(merging(pull, diskOf({ disk: "vdb", ...active, phase: MergePhase.PIVOTING })))).toBe("Copy");
});

test("an end is marked where it came", () => {
  expect(steps(deleteOf({ state: OperationState.SUCCEEDED })).every((step) => step.state === "done")).toBe(true);
  const begun = { startedAt: timestampFromMs(1) };
  const failed = (more: Parameters<typeof deleteOf>[0]) => steps(deleteOf({ state: OperationState.FAILED, ...more })).find((step) => step.state === "failed")?.name;
  expect(failed({ ...begun, disks: [diskOf({ ...active, phase: MergePhase.FAILED })] })).toBe("Copy");
  expect(failed(begun)).toBe("Plan");
  expect(failed({})).toBe("Queue");
  expect(hasEnded(deleteOf({ state: 99 as OperationState, endedAt: timestampFromMs(1) }))).toBe(true);
});

test("what is past the point of no return cannot be cancelled, and says where", () => {
  expect(cancelRefusal(merging(diskOf({ phase: MergePhase.COPYING })))).toBe("");
  expect(cancelRefusal(merging(diskOf({ phase: MergePhase.READY })))).toBe("");
  for (const phase of [MergePhase.PIVOTING, MergePhase.VERIFYING, MergePhase.MERGED]) {
    expect(cancelRefusal(merging(diskOf({ phase: MergePhase.COPYING, disk: "vdb" }), diskOf({ phase })))).toContain("vda");
  }
  expect(cancelRefusal(deleteOf({ cancelRequested: true }))).toContain("already");
  expect(cancelRefusal(deleteOf({ state: OperationState.SUCCEEDED }))).toBe("It has ended.");
  expect(cancelRefusal(deleteOf({ kind: OperationKind.CREATE_SNAPSHOT }))).not.toBe("");
});

test("a removal that waits, or is not the last of it, can be given up", () => {
  const removing = diskOf({ phase: MergePhase.REMOVING });
  expect(cancelRefusal(merging(removing))).toContain("vda");
  expect(cancelRefusal(deleteOf({ phase: OperationPhase.REMOVING, disks: [removing], waiting: { reason: "STORAGE_UNREACHABLE" } }))).toBe("");
  expect(cancelRefusal(merging(removing, diskOf({ round: 1, phase: MergePhase.PENDING })))).toBe("");
  expect(cancelRefusal(merging(diskOf({ phase: MergePhase.VERIFYING }), diskOf({ round: 1, phase: MergePhase.PENDING })))).toContain("vda");
});

test("an earlier round does not keep a later one from being cancelled", () => {
  const operation = merging(diskOf({ round: 0, phase: MergePhase.REMOVED }), diskOf({ round: 1, phase: MergePhase.COPYING }));
  expect(underWay(operation).map((disk) => disk.round)).toEqual([1]);
  expect(cancelRefusal(operation)).toBe("");
});

test("only a delete that is open takes a limit", () => {
  expect(takesLimit(deleteOf())).toBe(true);
  expect(takesLimit(deleteOf({ kind: OperationKind.CREATE_SNAPSHOT }))).toBe(false);
  expect(takesLimit(deleteOf({ state: OperationState.FAILED }))).toBe(false);
});
