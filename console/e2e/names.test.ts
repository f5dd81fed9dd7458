// Names with markup, quotes, right-to-left text and emoji are text everywhere.

import { ODD_NAMES } from "../src/scripted/world";
import { begin } from "../src/scripted/merge";
import { expect, test } from "vitest";
import { visible } from "../src/logic/text";
import { useStage } from "./stage";

const stage = useStage();

test("no name becomes markup, runs, or turns what stands around it", async () => {
  const backend = await stage.backend();
  const { world } = backend;
  const vm = world.vms[2]?.id ?? "";
  const list = world.snapshotsOf(world.vms[0]?.id ?? "");
  list.forEach((snapshot, index) => {
    const name = ODD_NAMES[index % ODD_NAMES.length] ?? "";
    Object.assign(snapshot, { description: name, labels: { odd: name } });
  });
  for (const name of ODD_NAMES) world.tell({ message: name, actor: name, vmId: vm, details: { [name]: name } });
  for (const at of [1, 2, 5]) begin(world, list.slice(at, at + 1), { requestId: `r${at}` });
  let dialogs = 0;
  const page = await stage.open(backend, "#/vms");
  page.on("dialog", (dialog) => ((dialogs += 1), void dialog.dismiss()));
  const check = async (where: string) => {
    const found = await page.evaluate(() => ({
      markup: document.querySelectorAll("#app img, #app script, #app iframe, [onerror]").length,
      turned: document.body.innerHTML.includes("\u202e"),
      loose: [...document.querySelectorAll("#app *")].filter((each) => each.childNodes.length === 1 && /[\u0590-\u06ff]/u.test(each.textContent ?? "") && each.children.length === 0 && !each.closest("bdi, [dir], option, title, textarea")).map((each) => each.outerHTML),
    }));
    expect(found, where).toEqual({ markup: 0, turned: false, loose: [] });
  };
  await page.getByText("12 machines").waitFor();
  for (const name of ODD_NAMES) await page.getByText(visible(name), { exact: true }).first().waitFor();
  await check("machines");
  const all = list.map((snapshot) => snapshot.id).join(",");
  const first = world.vms[0]?.id;
  for (const [to, shows] of [
    [`#/vms/${first}`, "8 snapshots"],
    [`#/vms/${first}/delete?snapshots=${all}`, "takes about"],
    [`#/vms/${first}/edit/${list[1]?.id}`, "Change a snapshot"],
    ["#/operations", "merging"],
    ["#/operations?group=queued", "place 2"],
    [`#/operations/${world.operations[0]?.id}`, "VM_BUSY"],
    ["#/events", "events"],
  ] as const) {
    await page.goto(backend.address + to);
    await page.getByText(shows).first().waitFor();
    await check(to);
  }
  await page.locator("button.row", { hasText: ODD_NAMES[0] }).first().click();
  await page.getByText("revision").waitFor();
  await check("an event");
  expect(dialogs).toBe(0);
});
