import { join } from "node:path";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: join(import.meta.dirname, "../.."),
    environment: "node",
    include: ["e2e/photo/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
