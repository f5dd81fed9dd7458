// @vitest-environment happy-dom
import { Dialog } from "./dialog";
import { expect, test } from "vitest";
import { render } from "preact";

test.each([true, false])("a dialog whose change is under way (%s) stays", (busy) => {
  let closed = 0;
  const root = document.createElement("div");
  document.body.append(root);
  render(
    <Dialog title="x" busy={busy} onClose={() => (closed += 1)}>
      y
    </Dialog>,
    root,
  );
  const dialog = root.querySelector("dialog");
  dialog?.dispatchEvent(new Event("cancel", { cancelable: true }));
  const escape = new KeyboardEvent("keydown", { key: "Escape", cancelable: true, bubbles: true });
  dialog?.dispatchEvent(escape);
  root.querySelector<HTMLButtonElement>("header button")?.click();
  expect(closed).toBe(busy ? 0 : 2);
  expect(escape.defaultPrevented).toBe(busy);
  render(null, root);
});
