// The last line says what was left out, and why.

import { commands, url, viewerToken } from "./environment";

export function teardown(): void {
  if (url === "") {
    console.log("SKIPPED: the console against real services: CONSOLE_URL names no page");
    return;
  }
  const missing = [
    ...(commands.killServer && commands.startServer ? [] : ["a server that is killed (CONSOLE_KILL_SERVER, CONSOLE_START_SERVER)"]),
    ...(commands.killVm ? [] : ["a machine that dies (CONSOLE_KILL_VM)"]),
    ...(viewerToken ? [] : ["a viewer (CONSOLE_VIEWER_TOKEN)"]),
  ];
  if (missing.length > 0) console.log(`SKIPPED: ${missing.join("; ")}`);
}
