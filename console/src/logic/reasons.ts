// What a person does next about a reason of the closed list, in the words of this page.

const ADVICE: Readonly<Record<string, string>> = {
  FIELD_INVALID: "Correct the fields that are named.",
  PAGE_TOKEN_INVALID: "Reload the list.",
  RESUME_TOKEN_INVALID: "The page begins again by itself.",
  REQUEST_ID_REUSED: "Close the dialog and ask again: it takes a new request id.",
  HOST_NOT_FOUND: "Look at the list of hosts.",
  VM_NOT_FOUND: "Look at the list of machines; its host must be registered.",
  DISK_NOT_FOUND: "The machine has no such disk by now. Look at its chains.",
  SNAPSHOT_NOT_FOUND: "It may have been deleted. Look at the machine's snapshots.",
  OPERATION_NOT_FOUND: "Look at the list of operations.",
  MERGE_NOT_FOUND: "The host's journal has no such merge. Look at the operation.",
  VOLUME_NOT_FOUND: "Look at the storage page.",
  REMOVAL_NOT_FOUND: "Its volume is gone, or was restored. Look at the storage page.",
  SNAPSHOT_ALREADY_EXISTS: "Choose another name.",
  MERGE_ID_CONFLICT: "Ask again: it takes a new id.",
  ETAG_MISMATCH: "The snapshot changed while you looked. Look again, then decide.",
  WATCH_CONSUMER_TOO_SLOW: "The page watches again by itself.",
  CONCURRENT_CHANGE: "Something else works on it. Look again, then decide.",
  SNAPSHOT_IS_ACTIVE_LAYER: "There is nothing above it to merge. Look at the chain.",
  SNAPSHOT_PROTECTED: "Take the protection off first, if it may go.",
  SNAPSHOT_SHARED_BASE: "Other disks are built on it. Delete what shares it first; the chain names it.",
  SNAPSHOT_NOT_READY: "Wait for its operation to end.",
  VM_STATE_UNKNOWN: "Bring the machine's host back.",
  HOST_IN_MAINTENANCE: "End the host's maintenance. What was accepted before goes on by itself then.",
  AGENT_INCOMPATIBLE: "Upgrade the older of the two: the server before the agents.",
  VM_NOT_RUNNING: "Start the machine, then try again.",
  GUEST_AGENT_UNAVAILABLE: "See to the agent in the guest, or take the snapshot with \"if possible\".",
  VM_MIGRATING: "Wait until the machine has arrived, then ask again.",
  CHAIN_DIVERGED: "Look at the chain as it is now, and at the consistency page.",
  CHAIN_LACKS_DATA: "Put the named volumes back into the chain while the machine is off. The message has the command.",
  VOLUME_IN_USE: "Something still needs the volume; it is named below.",
  REMOVAL_NOT_KEPT: "The time to bring it back is over.",
  STRATEGY_UNSUPPORTED: "Try the other direction, or leave the choice to the server.",
  NO_SAFE_REPAIR: "The finding says what to do instead.",
  POINT_OF_NO_RETURN: "It goes on to its end; only watching is left.",
  STALE_GENERATION: "A newer server or agent has taken over: stop the older one.",
  INSUFFICIENT_SPACE: "Free space in the storage domain, then try again.",
  SERVER_OVERLOADED: "Wait a little, then try again.",
  WATCH_LIMIT_REACHED: "Close other watches, or wait. The page tries again by itself.",
  HOST_UNREACHABLE: "Nothing was changed. Look whether the host is up, then try again.",
  HYPERVISOR_UNREACHABLE: "libvirt does not answer on the host. Try again.",
  STORAGE_UNREACHABLE: "The storage does not answer or is busy. Try again.",
  STORE_UNAVAILABLE: "Nothing was done. Try again.",
  PIVOT_PUT_OFF: "It is tried again by itself. If it stays so, raise merge.pause_limit_ms on the host.",
  VM_BUSY: "An earlier operation goes first. It goes on by itself.",
  MERGE_LIMIT_REACHED: "Its turn comes by itself.",
  SERVER_DRAINING: "The server is stopping. The page connects again by itself.",
  RESUME_TOKEN_EXPIRED: "The page lists again by itself.",
  DEADLINE_EXCEEDED: "What was accepted goes on. Repeat it: the request id stays the same.",
  CREDENTIALS_MISSING: "Sign in with a token.",
  CREDENTIALS_INVALID: "The token is not known, or has expired. Sign in with a new one.",
  METHOD_NOT_PERMITTED: "Your token's role may look, not change. Ask for the operator's role.",
  CHAIN_CORRUPT: "Nothing was removed. Look at the volume with `qemu-img check`.",
  VM_DIED: "No acknowledged write is lost. Start the machine, then delete again.",
  MERGE_IO_ERROR: "The chain reads as before for the guest. See to the cause, then delete again.",
  INTERNAL_BUG: "A fault of LiveMerge. The server's log has the cause under the request's id.",
};

/** The advice; empty for a reason that this version does not know. */
export function adviceFor(reason: string): string {
  return ADVICE[reason] ?? "";
}

/** Reasons by which it is certain that a merge was not begun, or that its chain reads as before. */
const SAFE: ReadonlySet<string> = new Set([
  "DISK_NOT_FOUND",
  "GUEST_AGENT_UNAVAILABLE",
  "HOST_IN_MAINTENANCE",
  "HOST_UNREACHABLE",
  "INSUFFICIENT_SPACE",
  "MERGE_IO_ERROR",
  "SNAPSHOT_IS_ACTIVE_LAYER",
  "SNAPSHOT_NOT_READY",
  "SNAPSHOT_PROTECTED",
  "SNAPSHOT_SHARED_BASE",
  "STORE_UNAVAILABLE",
  "STRATEGY_UNSUPPORTED",
  "VM_DIED",
  "VM_MIGRATING",
  "VM_NOT_RUNNING",
  "VOLUME_IN_USE",
]);
/** Reasons that say the data could not be told to be whole, and that nothing was removed. */
const IN_DOUBT: ReadonlySet<string> = new Set(["CHAIN_CORRUPT", "CHAIN_LACKS_DATA"]);

/** What is certain about the data after a failure; of a reason that this version does not know, nothing is. */
export function dataAfter(reason: string): string {
  if (SAFE.has(reason)) return "The data are safe: the guest reads what it read before, and no volume that holds data was removed.";
  if (IN_DOUBT.has(reason)) return "No volume was removed. The chain needs a look before the machine is started again.";
  return "Look at the chain before you go on.";
}
