// Deletes: what they will do, do and did.

import { advance } from "../src/scripted/merge";
import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

test("the plan, the click, the progress, the end, and the chain's new shape", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const page = await stage.open(backend, { page: "vm", id: vm });
  await page.getByText("8 snapshots").waitFor();
  await page.getByRole("button", { name: "Delete daily-001" }).click();

  const dialog = page.getByRole("dialog", { name: "Delete a snapshot" });
  await dialog.getByText(/Copies .* gives back .* takes about/u).waitFor();
  expect(page.url()).toContain("/delete?snapshots=");
  const chains = dialog.locator(".chain");
  expect(await chains.nth(0).locator(".block").count()).toBe(9);
  expect(await chains.nth(1).locator(".block").count()).toBe(8);
  await dialog.getByRole("button", { name: "Delete", exact: true }).click();

  await page.getByRole("heading", { name: "Delete “daily-001”" }).waitFor();
  expect(page.url()).toContain("#/operations/");
  advance(world, 0.1);
  advance(world, 0.5);
  await page.getByText(/of 45.0 MiB/u).first().waitFor();
  const bar = page.getByRole("progressbar", { name: "vda copied" });
  await expect.poll(() => bar.evaluate((each) => (each as HTMLProgressElement).value)).toBeGreaterThan(0.1);
  const before = await bar.evaluate((each) => (each as HTMLProgressElement).value);
  advance(world, 0.3);
  await expect.poll(() => bar.evaluate((each) => (each as HTMLProgressElement).value)).toBeGreaterThan(before);
  for (let step = 0; step < 20; step += 1) advance(world, 1);
  await page.getByText(/Done in .* given back/u).waitFor();
  await page.getByText("snapshot deleted").first().waitFor();
  await expect.poll(() => page.locator(".chain .block").count()).toBe(8);
  expect(await page.locator(".chain .removed").count()).toBe(0);
});

test("a cancel, and why there is none after the point of no return", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const snapshots = world.snapshotsOf(vm);
  const last = snapshots.at(-1)?.id ?? "";
  const page = await stage.open(backend, { page: "vm", id: vm, dialog: { kind: "delete", snapshots: [last] } });
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  const cancel = page.getByRole("button", { name: "Cancel…" });
  await expect.poll(() => cancel.isEnabled()).toBe(true);
  const open = world.operations[0];
  while (open && open.disks[0]?.phase !== 5 && world.operations[0]?.endedAt === undefined) {
    advance(world, 1);
    if (!(await cancel.isEnabled())) break;
    await page.waitForTimeout(1_200);
  }
  await page.getByText(/Past the point of no return: on vda/u).waitFor();
  expect(await cancel.isDisabled()).toBe(true);
});
