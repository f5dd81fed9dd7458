// @vitest-environment happy-dom
import { close, go, refine, route } from "./location";
import { expect, test, vi } from "vitest";
import { href, type Route } from "../logic/route";

const VM: Route = { page: "vm", id: "a" };
const OVER: Route = { ...VM, dialog: { kind: "create" } };
const OTHER: Route = { page: "hosts" };

/** As a browser: another hash is a step without a mark, and is told. */
function step(to: Route): void {
  window.history.pushState(null, "", href(to));
  window.dispatchEvent(new Event("hashchange"));
}

test("what was opened over a place is left by a step back, once", () => {
  const back = vi.spyOn(window.history, "back").mockImplementation(() => undefined);
  step(VM);
  step(OVER);
  close(VM);
  close(VM);
  expect(back).toHaveBeenCalledTimes(1);
  expect(route.value).toEqual(OVER);
  window.dispatchEvent(new Event("hashchange"));
  back.mockRestore();
});

test("what was come to from elsewhere is left by another place instead", () => {
  const back = vi.spyOn(window.history, "back").mockImplementation(() => undefined);
  step(OTHER);
  step(OVER);
  close(VM);
  expect(back).not.toHaveBeenCalled();
  expect(route.value).toEqual(VM);
  expect(window.location.hash).toBe(href(VM));
  back.mockRestore();
});

test("a step knows its origin as it was left, with its filter", () => {
  step({ page: "vms", q: "", state: "", host: "" });
  refine({ page: "vms", q: "web", state: "", host: "" });
  step(OTHER);
  expect(window.history.state).toEqual({ from: "#/vms?q=web" });
  go(VM);
  expect(window.location.hash).toBe(href(VM));
});
