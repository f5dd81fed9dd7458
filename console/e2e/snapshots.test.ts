// New snapshots, and changed ones.

import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

test("create: a name that is taken is refused with its reason, a free one is taken", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const page = await stage.open(backend, { page: "vm", id: vm });
  await page.getByRole("button", { name: "Take a snapshot" }).click();
  const dialog = page.getByRole("dialog", { name: "Take a snapshot" });
  // The name is where one begins.
  await expect.poll(() => dialog.getByLabel("Name").evaluate((field) => field === document.activeElement)).toBe(true);
  await dialog.getByLabel("Name").fill("daily-001");
  await dialog.getByRole("button", { name: "Take it" }).click();
  await dialog.getByText("SNAPSHOT_ALREADY_EXISTS").waitFor();
  await dialog.getByLabel("Name").fill("before the upgrade");
  await dialog.getByLabel("Description").fill("two\nlines");
  await dialog.getByLabel(/^Labels/u).fill("tier=gold\nby=hand");
  await dialog.getByLabel(/^Required/u).check();
  await dialog.getByLabel(/^Protected/u).check();
  await dialog.getByRole("button", { name: "Take it" }).click();
  await page.getByText("The snapshot is taken").waitFor();
  const made = world.snapshotsOf(vm).at(-1);
  expect(made).toMatchObject({ name: "before the upgrade", description: "two\nlines", labels: { tier: "gold", by: "hand" }, deletionProtected: true });
  await page.getByRole("link", { name: "The machine and its chains" }).click();
  await page.getByText("9 snapshots").waitFor();
  await expect.poll(() => page.locator(".chain .block").count()).toBe(10);
});

test("a field that the server would refuse is named before it is sent", async () => {
  const backend = await stage.backend();
  const page = await stage.open(backend, { page: "vm", id: backend.world.vms[0]?.id ?? "", dialog: { kind: "create" } });
  await page.getByLabel("Name").fill(" blank");
  await page.getByText("No blanks at the ends").waitFor();
  await page.getByLabel("Name").fill("fine");
  await page.getByLabel(/^Labels/u).fill("BAD=1");
  await page.getByText("is no key").waitFor();
  expect(await page.getByRole("button", { name: "Take it" }).isDisabled()).toBe(true);
});

test("rename and protect", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const page = await stage.open(backend, { page: "vm", id: vm });
  await page.getByRole("link", { name: "Edit daily-001" }).click();
  const dialog = page.getByRole("dialog", { name: "Change a snapshot" });
  await dialog.getByLabel("Name").fill("renamed");
  await dialog.getByLabel(/^Protected/u).check();
  await dialog.getByRole("button", { name: "Change it" }).click();
  await dialog.waitFor({ state: "detached" });
  const row = page.locator(".row.tree", { hasText: "renamed" });
  await row.getByText("protected").waitFor();
  expect(world.snapshotsOf(vm)[0]).toMatchObject({ name: "renamed", deletionProtected: true });
});

test("somebody else's change meanwhile is refused, not overwritten", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[0]?.id ?? "";
  const [snapshot] = world.snapshotsOf(vm);
  const page = await stage.open(backend, { page: "vm", id: vm, dialog: { kind: "edit", snapshot: snapshot?.id ?? "" } });
  await page.getByLabel("Name").fill("mine");
  if (snapshot) Object.assign(snapshot, { name: "theirs", etag: "r2" });
  await page.getByRole("button", { name: "Change it" }).click();
  await page.getByText("ETAG_MISMATCH").waitFor();
  expect(snapshot?.name).toBe("theirs");
});
