// A browser before scripted backends.

import { Backend } from "./server";
import { HOUSE, type Scene } from "./scenes";
import { Windows, used, type Look } from "./browser";
import { advance } from "../src/scripted/merge";
import { href, type Route } from "../src/logic/route";
import type { Door } from "../src/scripted/services";
import type { Page } from "playwright-core";
import type { Size } from "../src/scripted/world";

export const SMALL: Size = { vms: 12, snapshots: 8 };

export class Stage extends Windows {
  #backends: Backend[] = [];
  #timers: ReturnType<typeof setInterval>[] = [];

  async backend(size: Size = SMALL, door?: Door): Promise<Backend> {
    const backend = new Backend(size, door);
    await backend.start();
    this.#backends.push(backend);
    return backend;
  }

  async open(backend: Backend, route: Route | string, look: Look = {}): Promise<Page> {
    const page = await (await this.context(look)).newPage();
    await page.goto(backend.address + (typeof route === "string" ? route : href(route)));
    return page;
  }

  /** A scene, as it is when everything of it is there. */
  async enact(scene: Scene, look: Look): Promise<Page> {
    const backend = await this.backend(scene.size ?? HOUSE, scene.door);
    scene.before?.(backend.world);
    const page = await this.open(backend, scene.route(backend.world), look);
    if (scene.door === undefined) await page.locator("h1, dialog").first().waitFor();
    await scene.then?.(page, backend);
    await page.getByText(scene.shows).first().waitFor({ timeout: 40_000 });
    await page.locator(".bone").first().waitFor({ state: "detached" });
    return page;
  }

  /** Lets the backend's merges go on by themselves, so many times as fast as the clock. */
  play(backend: Backend, speed = 1): void {
    this.#timers.push(setInterval(() => advance(backend.world, 0.2 * speed), 200));
  }

  override async clear(): Promise<void> {
    this.#timers.splice(0).forEach(clearInterval);
    await super.clear();
    for (const backend of this.#backends.splice(0)) await backend.kill();
  }
}

export function useStage(): Stage {
  return used(new Stage());
}
