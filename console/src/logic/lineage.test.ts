import { chainOf, snapshotOf } from "../testing";
import { expect, test } from "vitest";
import { lineage } from "./lineage";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";

const at = (ms: number) => ({ createdAt: timestampFromMs(ms) });

test("the chain tells the order, whatever the clocks said", () => {
  const snapshots = [snapshotOf("late", "base", at(9_000)), snapshotOf("early", "one", at(1_000))];
  const rows = lineage(snapshots, [chainOf(["base", "one", "top"], [700, 30, 1])]);
  expect(rows.map((row) => [row.snapshot.name, row.bytes])).toEqual([
    ["late", 700],
    ["early", 30],
  ]);
});

test("what no chain has is set off, but not while no chain is known", () => {
  const lost = snapshotOf("lost", "gone", at(1_000));
  expect(lineage([lost], [chainOf(["base", "top"])])[0]).toMatchObject({ detached: true, bytes: undefined });
  expect(lineage([lost], [])[0]).toMatchObject({ detached: false });
});

test("500 snapshots are put in order at once", () => {
  const names = Array.from({ length: 501 }, (_, index) => `v${index}`);
  const snapshots = names.slice(0, 500).map((name, index) => snapshotOf(`s${index}`, name)).reverse();
  const rows = lineage(snapshots, [chainOf(names)]);
  expect(rows.map((row) => row.snapshot.name)).toEqual(Array.from({ length: 500 }, (_, index) => `s${index}`));
});
