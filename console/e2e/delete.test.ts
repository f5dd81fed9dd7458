// Deletes: what they will do, do and did.

import type { Backend } from "./server";
import type { Page } from "playwright-core";
import { MergePhase } from "../src/gen/livemerge/v1/merge_pb";
import { advance, crash } from "../src/scripted/merge";
import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

/** Orders a delete of the first machine's snapshots; the page is then at the operation. */
async function order(backend: Backend, pick: readonly number[]): Promise<Page> {
  const vm = backend.world.vms[0]?.id ?? "";
  const list = backend.world.snapshotsOf(vm);
  const snapshots = pick.flatMap((at) => list.at(at)?.id ?? []);
  const page = await stage.open(backend, { page: "vm", id: vm, dialog: { kind: "delete", snapshots } });
  await page.getByRole("button", { name: /^Delete( \d+)?$/u }).click();
  await page.waitForURL(/#\/operations\/./u);
  return page;
}

test("the plan, the click, the progress, the end, and the chain's new shape", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const page = await stage.open(backend, { page: "vm", id: world.vms[0]?.id ?? "" });
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
  const bar = page.getByRole("progressbar", { name: "vda copied" });
  const done = () => bar.evaluate((each) => (each as HTMLProgressElement).value);
  advance(world, 0.1);
  advance(world, 0.5);
  await expect.poll(done).toBeGreaterThan(0.1);
  const before = await done();
  advance(world, 0.2);
  await expect.poll(done).toBeGreaterThan(before);
  expect(await page.locator(".chain .removed").count()).toBe(1);

  for (let step = 0; step < 20; step += 1) advance(world, 1);
  await page.getByText(/Done in .* given back/u).waitFor();
  await page.getByText("snapshot deleted").first().waitFor();
  await expect.poll(() => page.locator(".chain .block").count()).toBe(8);
  expect(await page.locator(".chain .removed").count()).toBe(0);
});

test("several by selection, in one go; those apart go in rounds", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const page = await stage.open(backend, { page: "vm", id: vm });
  for (const name of ["daily-001", "🧑‍🚀 launch 🚀", "daily-008"]) await page.getByRole("checkbox", { name: `Select ${name}` }).check();
  await page.getByRole("button", { name: "Delete 3…" }).click();
  const dialog = page.getByRole("dialog", { name: "Delete 3 snapshots" });
  await dialog.getByText("Round 3:").waitFor();
  expect(await dialog.locator(".chain").nth(0).locator(".removed").count()).toBe(3);
  await dialog.getByRole("button", { name: "Delete 3" }).click();
  await page.getByRole("heading", { name: "Delete 3 snapshots" }).waitFor();
  stage.play(backend, 10);
  await page.getByText(/Done in/u).waitFor();
  expect(world.snapshotsOf(vm)).toHaveLength(5);
  await page.getByRole("link", { name: "The machine and its chains" }).click();
  await page.getByText("5 snapshots").waitFor();
});

test("only what is protected asks for its name", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const locked = world.snapshotsOf(vm).find((each) => each.deletionProtected);
  const page = await stage.open(backend, { page: "vm", id: vm, dialog: { kind: "delete", snapshots: [locked?.id ?? ""] } });
  const go = page.getByRole("button", { name: "Delete", exact: true });
  await page.getByText("takes about").waitFor();
  expect(await go.isDisabled()).toBe(true);
  await page.getByLabel("It is protected").fill(locked?.name ?? "");
  await go.click();
  await page.waitForURL(/#\/operations\/./u);
  expect(locked?.deletionProtected).toBe(false);
});

test("a cancel: asked twice, then given up, and the chain as it was", async () => {
  const backend = await stage.backend();
  const page = await order(backend, [0]);
  advance(backend.world, 0.1);
  await page.getByRole("button", { name: "Cancel…" }).click();
  const dialog = page.getByRole("dialog", { name: "Cancel the operation" });
  await dialog.getByRole("button", { name: "Let it go on" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Cancel…" }).click();
  await dialog.getByRole("button", { name: "Cancel the operation" }).click();
  await dialog.getByText("Its end is asked for").waitFor();
  await dialog.getByRole("button", { name: "Close", exact: true }).last().click();
  await page.getByText("Its end was asked for already").waitFor();
  advance(backend.world, 0.1);
  await page.getByText(/Given up after/u).waitFor();
  await page.getByText("operation cancelled").first().waitFor();
  await expect.poll(() => page.locator(".chain .block").count()).toBe(9);
  expect(await page.getByRole("button", { name: "Plan it again" }).isEnabled()).toBe(true);
});

test("after the point of no return there is no cancel, and the page says why", async () => {
  const backend = await stage.backend();
  const page = await order(backend, [-1]);
  const cancel = page.getByRole("button", { name: "Cancel…" });
  await expect.poll(() => cancel.isEnabled()).toBe(true);
  const [operation] = backend.world.operations;
  for (let step = 0; step < 30 && operation?.disks[0]?.phase !== MergePhase.PIVOTING; step += 1) advance(backend.world, 1);
  await page.getByText(/Past the point of no return: on vda/u).waitFor();
  expect(await cancel.isDisabled()).toBe(true);
  const said = await cancel.getAttribute("aria-describedby");
  expect(await page.locator(`[id="${said}"]`).textContent()).toContain("point of no return");
});

test("the limit of the copy follows the hand", async () => {
  const backend = await stage.backend();
  const page = await order(backend, [0]);
  await page.getByRole("slider").focus();
  await page.keyboard.press("Home");
  await page.getByText("Bandwidth: at most 1.00 MiB/s").waitFor();
  await expect.poll(() => backend.world.operations[0]?.bytesPerSecond).toBe(1n << 20n);
});

test("a machine that dies: what happened, that the data are safe, what to do", async () => {
  const backend = await stage.backend();
  const page = await order(backend, [0, 1]);
  advance(backend.world, 0.1);
  const [operation] = backend.world.operations;
  if (operation) crash(backend.world, operation);
  await page.getByText("VM_DIED").first().waitFor();
  await page.getByText("The data are safe").waitFor();
  await page.getByText("Start the machine, then delete again").waitFor();
  await page.getByText("live merge failed").waitFor();
  await page.getByRole("button", { name: "Plan it again" }).click();
  await page.getByRole("dialog", { name: "Delete 2 snapshots" }).waitFor();
});
