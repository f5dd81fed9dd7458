import { MergePhase } from "../gen/livemerge/v1/merge_pb";
import { OperationKind, OperationPhase, OperationState } from "../gen/livemerge/v1/operation_pb";
import { announcement, inShort, outcome, standing, title } from "./headline";
import { deleteOf, diskOf } from "../testing";
import { expect, test } from "vitest";

test("a title says what is done to how many", () => {
  expect(title(deleteOf())).toBe("Delete “monday”");
  expect(title(deleteOf({ snapshotIds: ["a", "b"] }))).toBe("Delete 2 snapshots");
  expect(title(deleteOf({ kind: OperationKind.CREATE_SNAPSHOT }))).toBe("Take “monday”");
});

test("who waits says at which place", () => {
  expect(standing(deleteOf({ state: OperationState.QUEUED, waiting: { queuePosition: 2 } }))).toBe("queued at place 2");
  expect(standing(deleteOf({ phase: OperationPhase.MERGING, cancelRequested: true }))).toBe("merging, its end was asked for");
  expect(standing(deleteOf({ state: OperationState.SUCCEEDED }))).toBe("done");
});

test("what is read out changes in tenths and minutes only", () => {
  const at = (done: bigint, left: bigint) =>
    announcement(deleteOf({ phase: OperationPhase.MERGING, disks: [diskOf({ phase: MergePhase.COPYING, doneBytes: done, totalBytes: 100n, timeLeft: { seconds: left } })] }));
  expect(at(31n, 50n)).toBe("Delete “monday”: merging, 30 percent copied, about 1 min 00 s left");
  expect(at(31n, 50n)).toBe(at(39n, 20n));
});

test("each end has its sentence", () => {
  const disks = [diskOf({ freedBytes: 1n << 30n })];
  expect(outcome(deleteOf({ state: OperationState.SUCCEEDED, disks }), 12)).toBe("Done in 12 s; 1.00 GiB given back.");
  expect(outcome(deleteOf({ state: OperationState.CANCELLED }), 3)).toContain("INCOMPLETE");
  expect(outcome(deleteOf({ state: OperationState.FAILED }), undefined)).toContain("stay in the list");
  expect(outcome(deleteOf(), 1)).toBe("");
});

test("in a list the badge has the state, and the line has what came of it", () => {
  const at = (seconds: number) => ({ seconds: BigInt(seconds) });
  const copying = [diskOf({ phase: MergePhase.COPYING, doneBytes: 45n, totalBytes: 100n })];
  expect(inShort(deleteOf({ phase: OperationPhase.MERGING, disks: copying }))).toBe("merging, 45 %");
  const times = { startedAt: at(10), endedAt: at(22) };
  expect(inShort(deleteOf({ state: OperationState.SUCCEEDED, disks: [diskOf({ freedBytes: 1n << 30n })], ...times }))).toBe("1.00 GiB given back in 12 s");
  expect(inShort(deleteOf({ state: OperationState.FAILED, ...times }))).toBe("after 12 s");
});
