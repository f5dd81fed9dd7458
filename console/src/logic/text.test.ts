import { count, folded, short, visible, visibleLines } from "./text";
import { expect, test } from "vitest";

test("what could mislead the eye is shown as its code", () => {
  expect(visible("a\u001bb\u202ec\u200bd\ufeff")).toBe("a\\u{1b}b\\u{202e}c\\u{200b}d\\u{feff}");
  expect(visible("a\u061cb")).toBe("a\\u{61c}b");
  expect(visibleLines("a\nb\u2066")).toBe("a\nb\\u{2066}");
});

test("markup, quotes, other scripts and emoji stay as they are written", () => {
  for (const name of [`<img src=x onerror="alert(1)">`, `"a" & 'b'`, "نسخة", "קודם 12", "🧑‍🚀🏳️‍🌈", "é"]) {
    expect(visible(name)).toBe(name);
  }
});

test("a search takes accents and case as they come", () => {
  expect(folded("E\u0301A")).toBe("éa");
  expect(count(1, "layer")).toBe("1 layer");
  expect(count(5_000, "machine")).toBe("5,000 machines");
  expect(short("01234567-89ab")).toBe("01234567");
});
