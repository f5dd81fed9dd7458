// Pages do not jump while they fill, nor while a merge goes on; on a narrow screen one sees where one is.

import type { Page } from "playwright-core";
import { HOUSE, SCENES } from "./scenes";
import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

/** What moved without being asked to, as browsers count it: below 0.1 is good. */
const moved = (page: Page) =>
  page.evaluate(
    () =>
      new Promise<number>((done) => {
        new PerformanceObserver((list) => {
          const shifts = list.getEntries() as (PerformanceEntry & { value: number; hadRecentInput: boolean })[];
          done(shifts.filter((each) => !each.hadRecentInput).reduce((sum, each) => sum + each.value, 0));
        }).observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done(0), 500);
      }),
  );

const QUIET = ["hosts", "machines", "machine", "machine-many", "machine-merging", "operations", "operation-done", "operation-failed", "log", "storage", "findings"];

test.each(SCENES.filter(({ name }) => QUIET.includes(name)).map((scene) => [scene.name, scene] as const))("%s stands still", async (name, scene) => {
  for (const width of [1280, 360]) {
    const page = await stage.enact(scene, { width });
    await page.waitForTimeout(1_000);
    const shift = await moved(page);
    console.log(`${name}, ${width} px: moved ${shift.toFixed(3)}`);
    expect(shift).toBeLessThan(0.1);
  }
});

test("a merge that goes on moves bars, not the page", async () => {
  const [running] = SCENES.filter(({ name }) => name === "operation-running");
  if (!running) throw new Error("there is such a scene");
  const backend = await stage.backend(HOUSE);
  running.before?.(backend.world);
  const page = await stage.open(backend, running.route(backend.world));
  await page.locator(".chain").first().waitFor();
  await page.waitForTimeout(1_000);
  const before = await moved(page);
  stage.play(backend, 0.2);
  await page.waitForTimeout(5_000);
  expect((await moved(page)) - before).toBeLessThan(0.02);
});

test.each(["#/findings", "#/events", "#/hosts"])("on a narrow screen %s is in sight among the pages", async (hash) => {
  const page = await stage.open(await stage.backend(), hash, { width: 360 });
  await page.locator("h1").waitFor();
  const box = await page.locator("nav .here").boundingBox();
  expect(box && box.x >= 0 && box.x + box.width <= 360).toBe(true);
});
