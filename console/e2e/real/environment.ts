// What the harness that has started guest, hosts and server says of them.

import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** The page's address. Without it there is nothing to test. */
export const url = process.env.CONSOLE_URL ?? "";
/** The bearer token of an operator, and of a viewer, where the server asks for one. */
export const token = process.env.CONSOLE_TOKEN ?? "";
export const viewerToken = process.env.CONSOLE_VIEWER_TOKEN ?? "";
/** Name or id of the machine; the first of the list when it is not given. */
export const machine = process.env.CONSOLE_VM ?? "";

/** Shell commands. Each returns when what it does is done. */
export const commands = {
  /** Kills the API server, as `kill -9` does. */
  killServer: process.env.CONSOLE_KILL_SERVER ?? "",
  /** Starts it again on the same addresses and record. */
  startServer: process.env.CONSOLE_START_SERVER ?? "",
  /** Kills the machine's process. */
  killVm: process.env.CONSOLE_KILL_VM ?? "",
  /** Has the guest write some 64 MiB, where its disk holds less than that. */
  guestWrites: process.env.CONSOLE_GUEST_WRITES ?? "",
} as const;

export async function sh(command: string): Promise<void> {
  await promisify(execFile)("sh", ["-c", command], { timeout: 120_000 });
}
