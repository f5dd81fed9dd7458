// All of it without a pointer.

import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

const focused = (page: Page) =>
  page.evaluate(() => {
    const at = document.activeElement;
    return (at?.getAttribute("aria-label") ?? at?.textContent ?? "").trim();
  });

/** Goes on with Tab until what has the focus says so. */
async function tabTo(page: Page, words: RegExp): Promise<void> {
  for (let step = 0; step < 60; step += 1) {
    if (words.test(await focused(page))) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`nothing to be reached says ${String(words)}; the last: ${await focused(page)}`);
}

test("from the list to a delete's end, and back", async () => {
  const backend = await stage.backend({ vms: 60, snapshots: 8 });
  const page = await stage.open(backend, "#/vms");
  await page.getByText("60 machines").waitFor();
  await page.keyboard.press("Tab");
  expect(await focused(page)).toBe("To the content");
  await page.keyboard.press("Enter");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");
  await page.keyboard.press("/");
  expect(await focused(page)).toContain("Search");
  await page.keyboard.type("vm-00");
  await tabTo(page, /^vm-0001/u);
  await page.keyboard.press("End");
  await expect.poll(() => focused(page)).toMatch(/^vm-0060/u);
  await page.keyboard.press("Home");
  await expect.poll(() => focused(page)).toMatch(/^vm-0001/u);
  await page.keyboard.press("ArrowDown");
  await expect.poll(() => focused(page)).toMatch(/^vm-0002/u);
  await page.keyboard.press("ArrowUp");
  await expect.poll(() => focused(page)).toMatch(/^vm-0001/u);
  await page.keyboard.press("Enter");
  await page.getByText("8 snapshots").waitFor();
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");

  await tabTo(page, /^Delete daily-001/u);
  await page.keyboard.press("Enter");
  await page.getByText("takes about").waitFor();
  expect(await focused(page)).toBe("Delete a snapshot");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  // The focus comes back to where the dialog was asked for.
  await expect.poll(() => focused(page)).toBe("Delete daily-001");
  await page.keyboard.press("Enter");
  await page.getByText("takes about").waitFor();
  await tabTo(page, /^Delete$/u);
  expect(await page.evaluate(() => document.activeElement?.closest("dialog") !== null)).toBe(true);
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/operations\/./u);
  await page.getByRole("slider").waitFor();
  await tabTo(page, /^Cancel…$/u);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await expect.poll(() => focused(page)).toBe("Cancel…");
});

test("the blocks of a chain are one stop, with arrows between them, and lead to their layers", async () => {
  const backend = await stage.backend();
  const page = await stage.open(backend, { page: "vm", id: backend.world.vms[0]?.id ?? "" });
  await page.getByText("8 snapshots").waitFor();
  await page.locator(".chain [role=button]").first().focus();
  await page.keyboard.press("End");
  expect(await focused(page)).toContain("the guest writes it");
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Enter");
  await page.locator(".layers li.chosen").waitFor();
  expect(await page.locator(".chain [role=button][tabindex='0']").count()).toBe(1);
});

test("what has the focus is seen to have it", async () => {
  const backend = await stage.backend();
  const page = await stage.open(backend, { page: "vm", id: backend.world.vms[0]?.id ?? "" });
  await page.getByText("8 snapshots").waitFor();
  for (let step = 0; step < 25; step += 1) {
    await page.keyboard.press("Tab");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement ?? document.body).outlineStyle);
    expect(outline, await focused(page)).not.toBe("none");
  }
});
