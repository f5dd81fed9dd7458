// Two tabs of one browser share one watch.

import { advance, begin } from "../src/scripted/merge";
import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

test("one watches for both; what happens shows in both; when it closes, the other goes on", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const context = await stage.context();
  const [one, two] = [await context.newPage(), await context.newPage()];
  for (const page of [one, two]) {
    await page.goto(`${backend.address}#/vms/${vm}`);
    await page.getByText("8 snapshots").waitFor();
    await page.getByText("live", { exact: true }).waitFor();
  }
  await expect.poll(() => backend.watching).toBe(1);

  begin(world, world.snapshotsOf(vm).slice(0, 1), { requestId: "r" });
  for (const page of [one, two]) await page.getByText("Delete “daily-001”").first().waitFor();
  const looks = backend.calls.get("ListOperations") ?? 0;
  await one.waitForTimeout(3_000);
  // One look a second at the open operations, not one for each tab.
  expect((backend.calls.get("ListOperations") ?? 0) - looks).toBeLessThanOrEqual(5);
  for (let step = 0; step < 20; step += 1) advance(world, 1);
  for (const page of [one, two]) await page.getByText("7 snapshots").waitFor();

  await two.close();
  world.tell({ message: "something", vmId: vm });
  await expect.poll(() => backend.watching).toBe(1);
  begin(world, world.snapshotsOf(vm).slice(0, 1), { requestId: "s" });
  await one.getByText("place 1").or(one.getByText("merging")).first().waitFor();
});
