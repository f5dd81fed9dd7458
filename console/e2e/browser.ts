// The browser of a file's tests, and what every page is held to: it never breaks its content security policy, and
// throws nothing.

import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { chromium, type Browser, type BrowserContext } from "playwright-core";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export interface Look {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: "light" | "dark";
}

export class Windows {
  #browser: Browser | undefined;
  #contexts: BrowserContext[] = [];
  /** What went wrong in any page. */
  readonly faults: string[] = [];

  /** CHROMIUM names the browser where it stands elsewhere. */
  async launch(): Promise<void> {
    this.#browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
  }

  /** A window with nothing in it yet; its pages are tabs that know each other. */
  async context({ width = 1280, height = 800, scheme = "light" }: Look = {}): Promise<BrowserContext> {
    if (this.#browser === undefined) throw new Error("the browser has not been started");
    const context = await this.#browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce", locale: "en" });
    this.#contexts.push(context);
    context.setDefaultTimeout(20_000);
    context.on("weberror", (error) => this.faults.push(String(error.error())));
    context.on("console", (message) => {
      // A connection that fails is what some tests are about.
      if (message.type() === "error" && !/Failed to load resource/u.test(message.text())) this.faults.push(message.text());
    });
    return context;
  }

  /** After each test. */
  async clear(): Promise<void> {
    for (const context of this.#contexts.splice(0)) await context.close();
  }

  async close(): Promise<void> {
    await this.#browser?.close();
  }
}

/** Ties the browser to the tests of the file. */
export function used<W extends Windows>(windows: W): W {
  beforeAll(() => windows.launch());
  afterEach(async () => {
    await windows.clear();
    expect(windows.faults.splice(0)).toEqual([]);
  });
  afterAll(() => windows.close());
  return windows;
}
