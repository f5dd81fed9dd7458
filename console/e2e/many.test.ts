// 5,000 machines, and 500 snapshots of one. What is held to is how much is drawn; how long it took is printed,
// because it is the machine's doing, too.

import type { Page } from "playwright-core";
import { FULL } from "../src/scripted/world";
import { expect, test } from "vitest";
import { useStage } from "./stage";

const stage = useStage();

interface Jank {
  readonly frames: number;
  readonly longest: number;
  readonly tasks: number;
  readonly longestTask: number;
}

/** Scrolls from end to end in 120 frames. */
function scroll(page: Page): Promise<Jank> {
  return page.evaluate(async () => {
    const tasks: number[] = [];
    const watcher = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((entry) => entry.duration)));
    watcher.observe({ type: "longtask" });
    const box = document.querySelector<HTMLElement>(".virtual") ?? document.body;
    const frame = () => new Promise<number>((done) => requestAnimationFrame(done));
    const gaps: number[] = [];
    let before = await frame();
    for (let step = 1; step <= 120; step += 1) {
      box.scrollTop = (box.scrollHeight * step) / 120;
      const now = await frame();
      gaps.push(now - before);
      before = now;
    }
    watcher.disconnect();
    return { frames: gaps.length, longest: Math.max(...gaps), tasks: tasks.length, longestTask: Math.max(0, ...tasks) };
  });
}

const say = (what: string, { frames, longest, tasks, longestTask }: Jank, ready: number) =>
  console.log(`${what}: there after ${ready.toFixed(0)} ms; ${frames} frames, the longest ${longest.toFixed(0)} ms; ${tasks} long tasks, the longest ${longestTask.toFixed(0)} ms`);

test("5,000 machines: those in sight are drawn, wherever one is", async () => {
  const backend = await stage.backend(FULL);
  const begun = performance.now();
  const page = await stage.open(backend, "#/vms");
  await page.getByText("5,000 machines").waitFor();
  await page.locator(".virtual li").first().waitFor();
  const ready = performance.now() - begun;
  const rows = page.locator(".virtual li");
  expect(await rows.count()).toBeLessThan(50);
  say("5,000 machines", await scroll(page), ready);
  expect(await rows.count()).toBeLessThan(50);
  await page.getByText("vm-5000").waitFor();
  await page.getByRole("searchbox").fill("vm-4321");
  await page.getByText("1 machine of 5,000").waitFor();
  expect(await rows.count()).toBe(1);
});

test("500 snapshots, and their chain of 501 layers", async () => {
  const backend = await stage.backend(FULL);
  const begun = performance.now();
  const page = await stage.open(backend, { page: "vm", id: backend.world.vms[0]?.id ?? "" });
  await page.getByText("500 snapshots").waitFor();
  await page.locator(".chain .block").nth(500).waitFor({ state: "attached" });
  const ready = performance.now() - begun;
  const rows = page.locator(".row.tree");
  expect(await rows.count()).toBeLessThan(50);
  expect(await page.locator(".chain .block").count()).toBe(501);
  say("500 snapshots", await scroll(page), ready);
  expect(await rows.count()).toBeLessThan(50);
  await page.getByText("daily-500").first().waitFor();
  await page.getByRole("button", { name: "Select all" }).click();
  await page.getByRole("button", { name: "Delete 500…" }).waitFor();
});
