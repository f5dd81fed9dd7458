// A browser and a scripted backend for the tests of a file, and what every page is held to: it never breaks its
// content security policy, and throws nothing.

import { Backend } from "./server";
import { advance } from "../src/scripted/merge";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { HOUSE, type Scene } from "./scenes";
import { href, type Route } from "../src/logic/route";
import type { Door } from "../src/scripted/services";
import type { Size } from "../src/scripted/world";

export const SMALL: Size = { vms: 12, snapshots: 8 };

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** CHROMIUM names the browser where it stands elsewhere. */
export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
}

export interface Look {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: "light" | "dark";
}

export class Stage {
  browser!: Browser;
  /** Fresh for each test. */
  #backends: Backend[] = [];
  #contexts: BrowserContext[] = [];
  #timers: ReturnType<typeof setInterval>[] = [];
  /** What went wrong in any page. */
  readonly faults: string[] = [];

  async backend(size: Size = SMALL, door?: Door): Promise<Backend> {
    const backend = new Backend(size, door);
    await backend.start();
    this.#backends.push(backend);
    return backend;
  }

  /** A browser with one window; its pages are tabs. */
  async context({ width = 1280, height = 800, scheme = "light" }: Look = {}): Promise<BrowserContext> {
    const context = await this.browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce", locale: "en" });
    this.#contexts.push(context);
    context.setDefaultTimeout(10_000);
    context.on("weberror", (error) => this.faults.push(String(error.error())));
    context.on("console", (message) => {
      // A connection that fails is what some tests are about.
      if (message.type() === "error" && !/Failed to load resource/u.test(message.text())) this.faults.push(message.text());
    });
    return context;
  }

  async open(backend: Backend, route: Route | string, look: Look = {}): Promise<Page> {
    const page = await (await this.context(look)).newPage();
    await page.goto(backend.address + (typeof route === "string" ? route : href(route)));
    return page;
  }

  /** Lets the backend's merges go on by themselves, so many times as fast as the clock. */
  play(backend: Backend, speed = 1): void {
    this.#timers.push(setInterval(() => advance(backend.world, 0.2 * speed), 200));
  }

  async clear(): Promise<void> {
    this.#timers.splice(0).forEach(clearInterval);
    for (const context of this.#contexts.splice(0)) await context.close();
    for (const backend of this.#backends.splice(0)) await backend.kill();
  }
}

export function useStage(): Stage {
  const stage = new Stage();
  beforeAll(async () => {
    stage.browser = await launch();
  });
  afterEach(async () => {
    await stage.clear();
    expect(stage.faults.splice(0)).toEqual([]);
  });
  afterAll(() => stage.browser.close());
  return stage;
}

/** A scene, as it is when everything of it is there. */
export async function enact(stage: Stage, scene: Scene, look: Look): Promise<Page> {
  const backend = await stage.backend(scene.size ?? HOUSE, scene.door);
  scene.before?.(backend.world);
  const page = await stage.open(backend, scene.route(backend.world), look);
  if (scene.door === undefined) await page.locator("h1, .empty h3, dialog").first().waitFor();
  await scene.then?.(page, backend);
  await page.getByText(scene.shows).first().waitFor({ timeout: 40_000 });
  await page.locator(".bone").first().waitFor({ state: "detached" });
  return page;
}
