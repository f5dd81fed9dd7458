// The development server, with the backend in the page.

import { Windows, used } from "./browser";
import { createServer } from "vite";
import { expect, test } from "vitest";
import { join } from "node:path";

const windows = used(new Windows());

test("?scripted and ?scripted=roles, and a merge that goes on by itself", async () => {
  const server = await createServer({ root: join(import.meta.dirname, ".."), server: { host: "127.0.0.1", port: 0 }, logLevel: "error" });
  await server.listen();
  try {
    const [address] = server.resolvedUrls?.local ?? [];
    const page = await (await windows.context()).newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(`${address}?scripted=roles#/vms`);
    await page.getByLabel("Bearer token").fill("change");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("5,000 machines").waitFor();
    await page.goto(`${address}?scripted#/vms?q=vm-0015`);
    await page.getByRole("link", { name: /vm-0015/u }).click();
    await page.getByRole("button", { name: "Delete daily-001" }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByText(/Done in .* given back/u).waitFor();
    expect(page.url()).toContain("scripted");
  } finally {
    await server.close();
  }
});
