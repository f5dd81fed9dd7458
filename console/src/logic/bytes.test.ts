import { bytes, bytesOr, rate } from "./bytes";
import { expect, test } from "vitest";

test.each([
  [0n, "0 B"],
  [1023, "1023 B"],
  [1024n, "1.00 KiB"],
  [1536n * 1024n, "1.50 MiB"],
  [80 * 1024 * 1024, "80.0 MiB"],
  [500n * 1024n ** 3n, "500 GiB"],
  [9n * 1024n ** 6n, "9216 PiB"],
  [-1, "–"],
  [Number.NaN, "–"],
])("%s is %s", (size, words) => expect(bytes(size)).toBe(words));

test("nothing known is nothing said", () => {
  expect(bytesOr(0n, "not known")).toBe("not known");
  expect(rate(2048n)).toBe("2.00 KiB/s");
});
