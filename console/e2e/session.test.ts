// Who is in, what they may, and that a server which goes away is waited for.

import { ROLES } from "./server";
import { advance } from "../src/scripted/merge";
import { expect, test } from "vitest";
import { useStage } from "./stage";
import type { Page } from "playwright-core";

const stage = useStage();

async function signIn(page: Page, token: string): Promise<void> {
  await page.getByLabel("Bearer token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
}

test("a viewer sees, and cannot delete; the token stands in no address and no local storage", async () => {
  const backend = await stage.backend(undefined, ROLES);
  const vm = backend.world.vms[0]?.id ?? "";
  const page = await stage.open(backend, { page: "vm", id: vm });
  await signIn(page, "wrong");
  await page.getByText("CREDENTIALS_INVALID").waitFor();
  await signIn(page, "look");
  await page.getByText("8 snapshots").waitFor();
  await page.getByText("viewer").waitFor();
  const changing = page.locator("button.danger, button.primary");
  expect(await changing.count()).toBeGreaterThan(8);
  for (const each of await changing.all()) expect(await each.isDisabled()).toBe(true);
  // An address that leads to the dialog shows the plan, and no more.
  const snapshots = [backend.world.snapshotsOf(vm)[0]?.id ?? ""];
  await page.evaluate((to) => (location.hash = to), `#/vms/${vm}/delete?snapshots=${snapshots[0]}`);
  await page.getByText("takes about").waitFor();
  await page.getByText("Your role may look, not delete.").last().waitFor();
  expect(await page.getByRole("button", { name: "Delete", exact: true }).isDisabled()).toBe(true);
  expect(page.url()).not.toContain("look");
  expect(await page.evaluate(() => JSON.stringify({ ...localStorage }))).not.toContain("look");
});

test("an operator stays in over a reload, and is out in every tab at once", async () => {
  const backend = await stage.backend(undefined, ROLES);
  const page = await stage.open(backend, { page: "hosts" });
  await signIn(page, "change");
  await page.getByText("host-01").waitFor();
  await page.reload();
  await page.getByText("host-01").waitFor();
  const other = await page.context().newPage();
  await other.goto(`${backend.address}#/hosts`);
  await other.getByText("host-01").waitFor();
  expect(await other.getByRole("button", { name: "Into maintenance" }).first().isEnabled()).toBe(true);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Bearer token").waitFor();
  await other.getByLabel("Bearer token").waitFor();
});

test("a server that is killed in the middle: the page says it is old, and recovers by itself", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const page = await stage.open(backend, { page: "vm", id: vm, dialog: { kind: "delete", snapshots: [world.snapshotsOf(vm)[0]?.id ?? ""] } });
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.waitForURL(/#\/operations\/./u);
  advance(world, 0.1);
  await page.getByText("live", { exact: true }).waitFor();
  await backend.kill();
  await page.getByText("stale", { exact: true }).waitFor({ timeout: 40_000 });
  for (let step = 0; step < 20; step += 1) advance(world, 1);
  await backend.start();
  await page.getByText("live", { exact: true }).waitFor({ timeout: 30_000 });
  await page.getByText(/Done in/u).waitFor();
  await page.getByText("snapshot deleted").first().waitFor();
});
