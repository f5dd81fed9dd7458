// Photographs of the real thing, for those who have not seen it: CONSOLE_SHOTS names the directory.

import type { Page } from "playwright-core";
import { Windows, used } from "../browser";
import { describe, test } from "vitest";
import { hurry, orderSlowly, plan, take, visitMachine } from "./machine";
import { join } from "node:path";
import { url } from "./environment";

const directory = process.env.CONSOLE_SHOTS ?? "";

describe.skipIf(url === "" || directory === "")("photographs", () => {
  const windows = used(new Windows());

  async function photograph(page: Page, name: string): Promise<void> {
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(directory, `${name}-${colorScheme}.png`) });
    }
  }

  test("a machine, a plan, a merge that goes on, its end, and the log", async () => {
    const page = await visitMachine(await windows.context());
    const name = await take(page);
    await photograph(page, "machine");
    await plan(page, name);
    await photograph(page, "plan");
    await page.keyboard.press("Escape");
    await orderSlowly(page);
    // A line of rates has to have some length.
    await page.waitForTimeout(8_000);
    await photograph(page, "merge");
    await hurry(page);
    await photograph(page, "done");
    await page.getByRole("link", { name: "In the audit log" }).click();
    await page.locator(".virtual li").first().waitFor();
    await photograph(page, "log");
  });
});
