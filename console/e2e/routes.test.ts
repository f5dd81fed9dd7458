// Addresses: deep links, the way back, reloads.

import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

test("a dialog, a filter and a page have addresses; back leads back, a reload loses nothing", async () => {
  const backend = await stage.backend({ vms: 60, snapshots: 8 });
  const vm = backend.world.vms[4]?.id ?? "";
  const page = await stage.open(backend, "#/vms?q=vm-00&state=running");
  await page.getByRole("searchbox").waitFor();
  expect(await page.getByRole("searchbox").inputValue()).toBe("vm-00");
  expect(await page.getByLabel("State").inputValue()).toBe("running");
  const filtered = await page.getByRole("status").first().textContent();
  await page.getByRole("link", { name: /vm-0011/u }).click();
  await page.getByRole("heading", { name: "vm-0011" }).waitFor();
  expect(await page.title()).toContain("LiveMerge");
  await page.goBack();
  await expect.poll(() => page.getByRole("status").first().textContent()).toBe(filtered);
  await page.goForward();
  await page.getByRole("heading", { name: "vm-0011" }).waitFor();

  // A dialog that was opened and closed leaves no step behind that does nothing.
  await page.getByRole("button", { name: "Take a snapshot" }).click();
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.goBack();
  await expect.poll(() => page.getByRole("status").first().textContent()).toBe(filtered);

  const [snapshot] = backend.world.snapshotsOf(vm);
  await page.goto(`${backend.address}#/vms/${vm}/delete?snapshots=${snapshot?.id}`);
  await page.getByRole("dialog").getByText("takes about").waitFor();
  await page.reload();
  await page.getByRole("dialog").getByText("takes about").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  expect(page.url()).toBe(`${backend.address}#/vms/${vm}`);
});

test("an address of nothing says so, and leads on", async () => {
  const backend = await stage.backend();
  const page = await stage.open(backend, "#/nowhere/at/all");
  await page.getByText("There is no such page").waitFor();
  await page.getByRole("link", { name: "Go to the machines" }).click();
  await page.getByText("12 machines").waitFor();
  await page.goto(`${backend.address}#/vms/00000000-0000-4000-8000-00000000ffff`);
  await page.getByText("VM_NOT_FOUND").first().waitFor();
});
