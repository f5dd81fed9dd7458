// A search that follows the typing; `/` leads to it from anywhere.

import { useEffect, useRef } from "preact/hooks";

export function Search({ value, label, onInput }: { value: string; label: string; onInput: (value: string) => void }) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const at = event.target as HTMLElement;
      if (event.key !== "/" || event.ctrlKey || event.metaKey || at.matches("input, textarea, select, dialog *")) return;
      event.preventDefault();
      field.current?.focus();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
  return <input ref={field} type="search" class="search" value={value} aria-label={label} placeholder={`${label} ( / )`} onInput={(event) => onInput(event.currentTarget.value)} />;
}

export function Choice({ value, label, options, onChange }: { value: string; label: string; options: readonly (readonly [string, string])[]; onChange: (value: string) => void }) {
  return (
    <label class="choice">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([key, words]) => (
          <option key={key} value={key}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}
