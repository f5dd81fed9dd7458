// The declared rules of a new snapshot, so that a form can say it before the server does.

/** Labels as they are typed, one `key=value` a line. */
export interface Labels {
  readonly labels: Record<string, string>;
  readonly problem: string;
}

const NAME = /^[^\p{Cc}\p{Z}]([^\p{Cc}]*[^\p{Cc}\p{Z}])?$/u;
const TEXT = /^([^\p{Cc}]|\n)*$/u;
const KEY = /^[a-z0-9./_-]{1,63}$/u;

/** Characters as the server counts them: an emoji of one code point is one. */
function length(text: string): number {
  return [...text].length;
}

/** What is wrong with a name; empty for nothing. */
export function nameProblem(name: string): string {
  if (name === "") return "A name is needed.";
  if (length(name) > 128) return "At most 128 characters.";
  return NAME.test(name) ? "" : "No blanks at the ends, and no control characters.";
}

export function descriptionProblem(description: string): string {
  if (length(description) > 1024) return "At most 1,024 characters.";
  return TEXT.test(description) ? "" : "No control characters but line breaks.";
}

export function parseLabels(text: string): Labels {
  const labels: Record<string, string> = {};
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  for (const line of lines) {
    const at = line.indexOf("=");
    const [key, value] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
    if (at < 0) return { labels, problem: `“${line}” has no “=”: write key=value.` };
    if (!KEY.test(key)) return { labels, problem: `“${key}” is no key: 1 to 63 of a-z 0-9 . / _ -` };
    if (length(value) > 256) return { labels, problem: `The value of “${key}” is longer than 256 characters.` };
    if (Object.hasOwn(labels, key)) return { labels, problem: `“${key}” stands twice.` };
    labels[key] = value;
  }
  if (lines.length > 32) return { labels, problem: "At most 32 labels." };
  return { labels, problem: "" };
}

export function writeLabels(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`)
    .join("\n");
}
