// Photographs every scene, light and dark, wide and narrow, into `e2e/shots/`. `SCENES=delete,hosts` takes only those.

import { SCENES } from "../scenes";
import { useStage } from "../stage";
import { join } from "node:path";
import { test } from "vitest";

const stage = useStage();
const wanted = (process.env.SCENES ?? "").split(",").filter(Boolean);
const scenes = SCENES.filter(({ name }) => wanted.length === 0 || wanted.includes(name));
const LOOKS = [
  { width: 1280, scheme: "light" },
  { width: 1280, scheme: "dark" },
  { width: 360, scheme: "light" },
  { width: 360, scheme: "dark" },
] as const;

test.each(scenes.map((scene) => [scene.name, scene] as const))("%s", async (name, scene) => {
  const page = await stage.enact(scene, LOOKS[0]);
  for (const { width, scheme } of LOOKS) {
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme: scheme });
    await page.waitForTimeout(150);
    const dialog = (await page.locator("dialog").count()) > 0;
    await page.screenshot({ path: join(import.meta.dirname, `../shots/${name}-${width}-${scheme}.png`), fullPage: !dialog });
  }
});
