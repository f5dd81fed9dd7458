// Names are others' text. They are put in as text only; what could mislead the eye is made visible.

// Controls, and marks that turn the direction of writing or take no room: they could make one name look
// like another. Joiners (U+200D) and variation selectors stay: emoji and several scripts need them.
const STEERS = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff]/gu;

/** The text with every steering character shown as its code. */
export function visible(text: string): string {
  return text.replace(STEERS, (mark) => `\\u{${(mark.codePointAt(0) ?? 0).toString(16)}}`);
}

/** The same for texts of several lines. */
export function visibleLines(text: string): string {
  return text.split("\n").map(visible).join("\n");
}

/** For a search: without case and without a choice of how accents are written. */
export function folded(text: string): string {
  return text.normalize("NFC").toLocaleLowerCase("en");
}

/** `3 snapshots`, `1 snapshot`. */
export function count(many: number, one: string, more = `${one}s`): string {
  return `${many.toLocaleString("en")} ${many === 1 ? one : more}`;
}

/** The beginning of an id: enough to tell it from its neighbours in a table. */
export function short(id: string): string {
  return id.slice(0, 8);
}
