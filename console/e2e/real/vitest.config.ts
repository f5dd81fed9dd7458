import { join } from "node:path";
import { defineConfig } from "vitest/config";

// One after the other, and in the order in which they stand: the last one leaves the machine dead.
export default defineConfig({
  test: {
    root: join(import.meta.dirname, "../.."),
    environment: "node",
    include: ["e2e/real/*.test.ts"],
    fileParallelism: false,
    sequence: { concurrent: false, shuffle: false },
    testTimeout: 300_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 30_000 } },
    globalSetup: ["e2e/real/report.ts"],
  },
});
