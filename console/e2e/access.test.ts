// Each scene under the rules of access, and none of them wider than a narrow screen.

import axe from "axe-core";
import { SCENES } from "./scenes";
import { useStage } from "./stage";
import { expect, test } from "vitest";

const stage = useStage();

test.each(SCENES.map((scene) => [scene.name, scene] as const))("%s", async (_, scene) => {
  const page = await stage.enact(scene, { width: 1280 });
  await page.evaluate(axe.source);
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    const violations = await page.evaluate(async () => {
      const { violations } = await (window as unknown as { axe: typeof axe }).axe.run(document, { resultTypes: ["violations"] });
      return violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes.slice(0, 3).map((node) => `${node.target.join(" ")}: ${node.failureSummary ?? ""}`) }));
    });
    const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    expect(grave, colorScheme).toEqual([]);
    for (const { id, impact } of violations) console.log(`${scene.name}, ${colorScheme}: ${impact} ${id}`);
  }
  for (const width of [360, 768]) {
    await page.setViewportSize({ width, height: 800 });
    const wide = await page.evaluate(() => {
      const boxes = [document.documentElement, ...document.querySelectorAll("main, dialog, .virtual, .card")];
      return boxes.filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => `${box.tagName}.${box.className}: ${box.scrollWidth} > ${box.clientWidth}`);
    });
    expect(wide, `${width} px`).toEqual([]);
  }
});
