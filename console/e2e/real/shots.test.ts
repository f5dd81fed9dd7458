// Photographs of the real thing, for those who have not seen it: CONSOLE_SHOTS names the directory.

import type { Page } from "playwright-core";
import { Windows, used } from "../browser";
import { describe, test } from "vitest";
import { hurry, orderSlowly, plan, take, visitMachine } from "./machine";
import { join } from "node:path";
import { placeOf } from "../../src/logic/bandwidth";
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

  test("a machine, a plan, a merge that goes on, and its end", async () => {
    const page = await visitMachine(await windows.context());
    await take(page, "installed");
    await take(page, "monday");
    await take(page, "tuesday");
    await photograph(page, "machine");
    await plan(page, "monday");
    await photograph(page, "plan");
    await page.keyboard.press("Escape");
    await orderSlowly(page, "before the upgrade");
    // At the least rate QEMU copies now and then only.
    await page.getByRole("slider").fill(String(placeOf(4 * 2 ** 20)));
    await page.getByText("at most 4.00 MiB/s").waitFor();
    // A line of rates has to have some length.
    await page.waitForTimeout(6_000);
    await photograph(page, "merge");
    await hurry(page);
    await photograph(page, "done");
  });
});
