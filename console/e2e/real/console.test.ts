// The console in a real browser, against a real server, real hosts and a real guest, which somebody else has started.

import { POLICY } from "../server";
import { Windows, used } from "../browser";
import { commands, sh, url, viewerToken } from "./environment";
import { copying, done, hurry, order, orderSlowly, plan, row, take, visit, visitMachine } from "./machine";
import { describe, expect, test } from "vitest";

describe.skipIf(url === "")("the console against real services", () => {
  const windows = used(new Windows());

  test("the page is served as it asks for", async () => {
    const index = await fetch(url.replace(/#.*$/u, ""));
    expect(index.headers.get("cache-control")).toContain("no-cache");
    const policy = index.headers.get("content-security-policy") ?? "";
    for (const rule of POLICY.split("; ")) expect(policy).toContain(rule);
    const [, script = ""] = /src="([^"]+\.js)"/u.exec(await index.text()) ?? [];
    const asset = await fetch(new URL(script, url));
    expect(asset.status).toBe(200);
    expect(asset.headers.get("cache-control")).toMatch(/max-age=31536000.*immutable/u);
  });

  test("hosts, machines, storage, log and consistency are there", async () => {
    const context = await windows.context();
    const page = await visit(context, "#/hosts");
    await page.getByText("UP", { exact: true }).first().waitFor();
    await page.getByText("live", { exact: true }).waitFor();
    for (const [link, shows] of [
      ["Machines", /\d+ machines?/u],
      ["Audit log", /\d+ events?/u],
      ["Storage", /Condemned volumes/u],
      ["Consistency", /\d+ findings?/u],
    ] as const) {
      await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: link }).click();
      await page.getByText(shows).first().waitFor({ timeout: 60_000 });
      expect(await page.locator(".problem[role=alert]").count(), link).toBe(0);
    }
  });

  test("a snapshot is taken, and the chain is longer", async () => {
    const page = await visitMachine(await windows.context());
    const layers = await page.locator(".chain .block").count();
    await take(page);
    await expect.poll(() => page.locator(".chain .block").count()).toBeGreaterThan(layers);
  });

  test("a delete: the plan, the progress, the end, and the chain's new shape", async () => {
    const page = await visitMachine(await windows.context());
    const name = await take(page);
    const layers = await page.locator(".chain .block").count();
    await plan(page, name);
    const dialog = page.getByRole("dialog");
    expect(await dialog.locator(".summary strong").textContent()).toMatch(/gives back|takes about|Copies/u);
    expect(await dialog.locator(".chain").count()).toBeGreaterThanOrEqual(2);
    expect(await dialog.locator(".chain .removed").count()).toBeGreaterThan(0);
    await order(page);
    await page.getByText(/Done in .* given back/u).waitFor({ timeout: 120_000 });
    await page.getByText("snapshot deleted").first().waitFor();
    await page.getByRole("link", { name: "The machine and its chains" }).click();
    await expect.poll(() => page.locator(".chain .block").count()).toBeLessThan(layers);
    expect(await row(page, name).count()).toBe(0);
  });

  test("a delete that takes long is seen to go on, and is cancelled", async () => {
    const page = await visitMachine(await windows.context());
    await orderSlowly(page);
    const before = await done(page);
    await expect.poll(() => done(page)).toBeGreaterThan(before);
    await page.getByRole("button", { name: "Cancel…" }).click();
    const dialog = page.getByRole("dialog", { name: "Cancel the operation" });
    await dialog.getByRole("button", { name: "Cancel the operation" }).click();
    await dialog.getByText("Its end is asked for").waitFor();
    await page.keyboard.press("Escape");
    await page.getByText(/Given up after/u).waitFor({ timeout: 120_000 });
    await page.getByText("operation cancelled").first().waitFor();
  });

  test("two tabs see the same, and the limit that one sets", async () => {
    const browser = await windows.context();
    const one = await visitMachine(browser);
    await orderSlowly(one);
    const two = await browser.newPage();
    await two.goto(one.url());
    await copying(two);
    const before = await done(two);
    await expect.poll(() => done(two)).toBeGreaterThan(before);
    await hurry(one);
    await two.getByText(/Done in .* given back/u).waitFor({ timeout: 60_000 });
  });

  test.skipIf(commands.killServer === "" || commands.startServer === "")("a server that is killed in the middle: the page recovers by itself", async () => {
    const page = await visitMachine(await windows.context());
    await orderSlowly(page);
    const address = page.url();
    const before = await done(page);
    await sh(commands.killServer);
    await page.getByText("stale", { exact: true }).waitFor({ timeout: 60_000 });
    await sh(commands.startServer);
    await page.getByText("live", { exact: true }).waitFor({ timeout: 60_000 });
    expect(page.url()).toBe(address);
    await expect.poll(() => done(page), { timeout: 60_000 }).toBeGreaterThan(before);
    await hurry(page);
  });

  test.skipIf(viewerToken === "")("a viewer sees, and cannot delete", async () => {
    const page = await visitMachine(await windows.context(), viewerToken);
    await page.getByText("viewer", { exact: true }).waitFor();
    for (const each of await page.locator("button.danger, button.primary").all()) expect(await each.isDisabled()).toBe(true);
    expect(page.url()).not.toContain(viewerToken);
  });

  test.skipIf(commands.killVm === "")("a machine that dies: the failure, what is certain, and the event in the log", async () => {
    const page = await visitMachine(await windows.context());
    await orderSlowly(page);
    await sh(commands.killVm);
    await page.getByText("VM_DIED").first().waitFor({ timeout: 120_000 });
    await page.getByText("The data are safe").waitFor();
    expect(await page.getByRole("button", { name: "Plan it again" }).isEnabled()).toBe(true);
    await page.getByRole("link", { name: "In the audit log" }).click();
    await page.locator(".virtual", { hasText: "live merge failed" }).waitFor();
  });
});
