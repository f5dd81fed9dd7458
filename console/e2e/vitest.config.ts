import { join } from "node:path";
import { defineConfig } from "vitest/config";

// One browser at a time: what is measured is the page, not the tests beside it.
export default defineConfig({
  test: {
    root: join(import.meta.dirname, ".."),
    environment: "node",
    include: ["e2e/*.test.ts"],
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 20_000 } },
  },
});
