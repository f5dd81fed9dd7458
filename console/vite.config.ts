import { defineConfig } from "vitest/config";
import { loadEnv } from "vite";

export default defineConfig(({ mode }) => {
  // The real server in development: `CONSOLE_SERVER=http://127.0.0.1:PORT npm run dev`.
  const server = loadEnv(mode, ".", "CONSOLE_").CONSOLE_SERVER;
  return {
    build: {
      target: "es2022",
      // Nothing stands inside the page as data: the content security policy names files only.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      reportCompressedSize: false,
    },
    server: server ? { proxy: { "^/livemerge\\.v1\\.": { target: server, changeOrigin: true } } } : {},
    test: { environment: "node", include: ["src/**/*.test.{ts,tsx}"] },
  };
});
