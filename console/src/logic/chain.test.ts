import { blocks, chainSentence, commonScale, layersOf } from "./chain";
import { chainOf, snapshotOf, volume } from "../testing";
import { expect, test } from "vitest";

test("the last layer is active, the first is the base, and each knows whose point in time it holds", () => {
  const layers = layersOf(chainOf(["base", "one", "top"]), [snapshotOf("monday", "base"), snapshotOf("tuesday", "one")]);
  expect(layers.map((layer) => [layer.base, layer.active, layer.snapshots.map((each) => each.name)])).toEqual([
    [true, false, ["monday"]],
    [false, false, ["tuesday"]],
    [false, true, []],
  ]);
});

test("a layer between the ends without a snapshot is flagged; a base and an active layer are not", () => {
  const layers = layersOf(chainOf(["base", "foreign", "top"]), []);
  expect(layers.map((layer) => layer.recordless)).toEqual([false, true, false]);
});

test("a snapshot of another disk, or of a volume of that name elsewhere, does not count", () => {
  const elsewhere = snapshotOf("a", "one", { disks: [{ disk: "vda", volume: { storage: "other", name: "one" } }] });
  const other = snapshotOf("b", "one", { disks: [{ disk: "vdb", volume: volume("one") }] });
  expect(layersOf(chainOf(["base", "one", "top"]), [elsewhere, other])[1]?.recordless).toBe(true);
});

test("blocks fill the width, keep their order and follow the sizes", () => {
  const placed = blocks([100, 0, 300]);
  const [first, second, third] = placed;
  expect((third?.x ?? 0) + (third?.width ?? 0)).toBeCloseTo(100);
  expect(second?.width).toBeGreaterThan(5);
  expect((third?.width ?? 0) - (second?.width ?? 0)).toBeCloseTo(3 * ((first?.width ?? 0) - (second?.width ?? 0)));
});

test.each([1, 2, 61, 500])("%i blocks stay inside, whatever they hold", (many) => {
  for (const sizes of [Array(many).fill(0), Array(many).fill(5), [...Array(many - 1).fill(0), 1e15]]) {
    const placed = blocks(sizes);
    const ends = placed.map(({ x, width }) => x + width);
    const apart = placed.every(({ x, width }, index) => width > 0 && x >= (ends[index - 1] ?? 0) - 1e-9);
    expect(apart).toBe(true);
    expect(Math.max(...ends)).toBeLessThanOrEqual(100 + 1e-6);
  }
});

test("with a common scale a smaller chain is a shorter drawing", () => {
  const ends = (...drawings: number[][]) => {
    const scale = commonScale(...drawings);
    return drawings.map((sizes) => blocks(sizes, scale).reduce((most, { x, width }) => Math.max(most, x + width), 0));
  };
  const [more = 0, less = 0] = ends([600, 400], [400, 100]);
  expect(less).toBeLessThan(more);
  const [two = 0, one = 0] = ends([10, 10], [10]);
  expect(two).toBeCloseTo(100);
  expect(one).toBeCloseTo(50, 0);
  expect(blocks([])).toEqual([]);
});

test("a screen reader hears what is drawn", () => {
  const layers = layersOf(chainOf(["base", "foreign", "top"]), []);
  expect(chainSentence("vda", layers)).toBe("Chain of vda: 3 layers, base first; the guest writes top; 1 flagged");
});
