import { MergeKind } from "../gen/livemerge/v1/merge_pb";
import { PlanDeleteSnapshotResponseSchema } from "../gen/livemerge/v1/snapshot_service_pb";
import { chainOf, mergeOf, snapshotOf } from "../testing";
import { changes, obstacles, room, summary } from "./plan";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { layersOf } from "./chain";

const planOf = (...merges: ReturnType<typeof mergeOf>[]) => create(PlanDeleteSnapshotResponseSchema, { merges });
const NAMES = ["base", "one", "two", "top"];
const SNAPSHOTS = [snapshotOf("mo", "base"), snapshotOf("tu", "one"), snapshotOf("we", "two")];
const CHAINS = new Map([["vda", layersOf(chainOf(NAMES), SNAPSHOTS)]]);

test("a commit keeps the oldest, which then holds the next younger point in time", () => {
  const merge = mergeOf("base", ["one"], { kind: MergeKind.INTERMEDIATE_COMMIT, spaceNeededBytes: 40n });
  const [change] = changes(planOf(merge), CHAINS);
  expect(change?.before.map((layer) => layer.role)).toEqual(["kept", "removed", "none", "none"]);
  expect(change?.after.map((layer) => layer.name)).toEqual(["base", "two", "top"]);
  expect(change?.after[0]).toMatchObject({ allocated: 140, base: true });
  expect(change?.after[0]?.snapshots.map((each) => each.name)).toEqual(["tu"]);
});

test("an active commit leaves the kept volume for the guest to write", () => {
  const merge = mergeOf("two", ["top"], { kind: MergeKind.ACTIVE_COMMIT });
  const after = changes(planOf(merge), CHAINS)[0]?.after;
  expect(after?.at(-1)).toMatchObject({ name: "two", active: true, snapshots: [] });
});

test("a pull keeps the youngest", () => {
  const merge = mergeOf("top", ["one", "two"], { kind: MergeKind.PULL });
  expect(changes(planOf(merge), CHAINS)[0]?.after.map((layer) => layer.name)).toEqual(["base", "top"]);
});

test("rounds of one disk add up", () => {
  const rounds = planOf(mergeOf("two", ["top"], { round: 1, kind: MergeKind.ACTIVE_COMMIT }), mergeOf("base", ["one"], { round: 0 }));
  const [change] = changes(rounds, CHAINS);
  expect(change?.merges.map((merge) => merge.round)).toEqual([0, 1]);
  expect(change?.after.map((layer) => layer.name)).toEqual(["base", "two"]);
});

test("without a chain the plan draws what it names, at the end that the data go to", () => {
  const down = changes(planOf(mergeOf("kept", ["a", "b"], { kind: MergeKind.ACTIVE_COMMIT })), new Map());
  expect(down[0]?.before.map((layer) => layer.name)).toEqual(["kept", "a", "b"]);
  const up = changes(planOf(mergeOf("kept", ["a", "b"], { kind: MergeKind.PULL })), new Map());
  expect(up[0]?.before.map((layer) => layer.name)).toEqual(["a", "b", "kept"]);
});

test("words for what is known and what is not", () => {
  expect(summary(planOf())).toBe("Copies nothing, gives back nothing, takes a time that is not known yet.");
  const full = create(PlanDeleteSnapshotResponseSchema, { copyBytes: 1n << 30n, freedBytes: 2n << 30n, estimatedTime: { seconds: 65n } });
  expect(summary(full)).toBe("Copies 1.00 GiB, gives back 2.00 GiB, takes about 1 min 05 s.");
  expect(room(mergeOf("a", ["b"], { spaceNeededBytes: 10n }))).toMatchObject({ free: undefined, enough: true });
  expect(room(mergeOf("a", ["b"], { spaceNeededBytes: 10n, spaceFreeBytes: 5n }))).toMatchObject({ enough: false });
});

test("what is in the way is said once, with what helps", () => {
  const { blockers } = create(PlanDeleteSnapshotResponseSchema, {
    blockers: [
      { snapshotId: "x", reason: "SNAPSHOT_PROTECTED", message: "it is protected" },
      { snapshotId: "x", reason: "SNAPSHOT_PROTECTED", message: "it is protected" },
      { disk: "vdb", reason: "SOMETHING_NEW", message: "not known here" },
      { reason: "VM_MIGRATING", message: "it moves" },
    ],
  });
  const found = obstacles(blockers, new Map([["x", "monday"]]));
  expect(found.map((each) => each.about)).toEqual(["snapshot monday", "disk vdb", "the machine"]);
  expect(found.map((each) => each.advice !== "")).toEqual([true, false, true]);
});
