// A dialog over the page: the browser's own, which keeps the focus inside and gives it back.

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

interface Props {
  readonly title: string;
  readonly onClose: () => void;
  readonly wide?: boolean;
  /** What was asked for is under way: closing the dialog would not call it off. */
  readonly busy?: boolean;
  readonly children: ComponentChildren;
}

export function Dialog({ title, onClose, wide = false, busy = false, children }: Props) {
  const own = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const dialog = own.current;
    if (dialog && !dialog.open) {
      dialog.showModal();
      // At what is to be filled in first, or else at the title: not at the cross that closes.
      dialog.querySelector<HTMLElement>(dialog.querySelector("[data-first]") ? "[data-first]" : "h2")?.focus();
    }
    return () => dialog?.close();
  }, []);
  const cancelled = (event: Event) => {
    event.preventDefault();
    if (!busy) onClose();
  };
  // A browser closes a dialog at the second Escape whatever is said to the first.
  const pressed = (event: KeyboardEvent) => {
    if (busy && event.key === "Escape") event.preventDefault();
  };
  return (
    <dialog ref={own} class={wide ? "wide" : ""} aria-labelledby={heading} onCancel={cancelled} onKeyDown={pressed}>
      <header>
        <h2 id={heading} tabIndex={-1}>{title}</h2>
        <button type="button" class="quiet" disabled={busy} onClick={onClose} aria-label="Close">
          ✕
        </button>
      </header>
      <div class="body">{children}</div>
    </dialog>
  );
}
