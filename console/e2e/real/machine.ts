// What one does with a real machine's page.

import type { BrowserContext, Page } from "playwright-core";
import { commands, machine, sh, token, url } from "./environment";

const base = url.replace(/\/?(#.*)?$/u, "/");
/** Guests and disks take their time. */
const LONG = 120_000;

/** Opens a place, and signs in where the server asks for it. */
export async function visit(context: BrowserContext, route: string, as = token): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  await page.goto(base + route);
  const field = page.getByLabel("Bearer token");
  await page.locator("h1").first().waitFor();
  if (await field.isVisible()) {
    await field.fill(as);
    await page.getByRole("button", { name: "Sign in" }).click();
    await field.waitFor({ state: "detached" });
  }
  return page;
}

/** From the list to the machine's page, as a person goes. */
export async function visitMachine(context: BrowserContext, as = token): Promise<Page> {
  const page = await visit(context, "#/vms", as);
  if (machine !== "") await page.getByRole("searchbox").fill(machine);
  await page.locator(".virtual a.row").first().click();
  await page.getByRole("heading", { name: "Snapshots" }).waitFor();
  await page.locator(".chain .block").first().waitFor({ state: "attached" });
  return page;
}

let names = 0;

/** Takes a snapshot, of a name of its own where none is given, and comes back to the machine's page. */
export async function take(page: Page, called = ""): Promise<string> {
  names += 1;
  const name = called === "" ? `console-${Date.now().toString(36)}-${names}` : called;
  await page.getByRole("button", { name: "Take a snapshot" }).click();
  const dialog = page.getByRole("dialog", { name: "Take a snapshot" });
  await dialog.getByLabel("Name").fill(name);
  await dialog.getByRole("button", { name: "Take it" }).click();
  await page.getByText("The snapshot is taken").waitFor({ timeout: LONG });
  await page.getByRole("link", { name: "The machine and its chains" }).click();
  await row(page, name).waitFor();
  return name;
}

export const row = (page: Page, name: string) => page.locator(".row.tree", { hasText: name });

/** Opens the delete dialog, and waits for the plan. */
export async function plan(page: Page, name: string): Promise<void> {
  await page.getByRole("button", { name: `Delete ${name}` }).click();
  await page.getByRole("dialog").locator(".summary").waitFor();
}

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };

/** Bytes that the plan in sight would copy; 0 when it would be refused. */
async function copies(page: Page): Promise<number> {
  const dialog = page.getByRole("dialog");
  await dialog.locator(".summary, .problem").first().waitFor();
  if (await dialog.getByRole("button", { name: "Delete", exact: true }).isDisabled()) return 0;
  const text = (await dialog.locator(".summary strong").textContent()) ?? "";
  const [, size = "0", unit = "B"] = /Copies ([\d.]+) (\w+)/u.exec(text) ?? [];
  return Number(size) * (UNITS[unit] ?? 1);
}

/** Less than this at the least rate would be over before anything can be done about it. */
const ENOUGH = 24 * 2 ** 20;

/** Orders a delete that takes long: at 1 MiB a second, down if there is enough above, else up. */
export async function orderSlowly(page: Page, called = ""): Promise<void> {
  const name = await take(page, called);
  if (commands.guestWrites !== "") await sh(commands.guestWrites);
  await plan(page, name);
  const dialog = page.getByRole("dialog");
  await dialog.getByText("How it merges").click();
  await choose(page, ["commit", "pull"]);
  await dialog.getByRole("slider").focus();
  await page.keyboard.press("Home");
  await dialog.getByText("at most 1.00 MiB/s").waitFor();
  await order(page);
  await copying(page);
}

/** The first direction that copies enough. */
async function choose(page: Page, directions: readonly string[]): Promise<void> {
  for (const direction of directions) {
    const answer = page.waitForResponse(/PlanDeleteSnapshot/u);
    await page.getByRole("dialog").getByLabel("Direction").selectOption(direction);
    await answer;
    if ((await copies(page)) >= ENOUGH) return;
  }
  throw new Error("no way of the plan copies enough to take long: name a command in CONSOLE_GUEST_WRITES");
}

export async function order(page: Page): Promise<void> {
  await page.getByRole("dialog").getByRole("button", { name: "Delete", exact: true }).click();
  await page.waitForURL(/#\/operations\/./u);
}

export const done = (page: Page): Promise<number> =>
  page
    .getByRole("progressbar")
    .first()
    .evaluate((bar) => (bar as HTMLProgressElement).value);

/** Waits until bytes are seen to move. */
export async function copying(page: Page): Promise<void> {
  await page.getByText("copying").first().waitFor({ timeout: LONG });
  await page.waitForFunction(() => (document.querySelector<HTMLProgressElement>("progress")?.value ?? 0) > 0, undefined, { timeout: LONG });
}

/** Takes the limit off, and waits for the end. */
export async function hurry(page: Page): Promise<void> {
  await page.getByRole("slider").focus();
  await page.keyboard.press("End");
  await page.getByText(/Done in .* given back/u).waitFor({ timeout: LONG });
}
