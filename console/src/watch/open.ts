// The operations that are open: one call for all of them, again and again while somebody looks.
//
// Bytes and rates stand in no audit event, and a stream for each operation would soon use up the few
// connections that a browser opens to one server.

import type { Clients } from "../api/clients";
import type { Operation } from "../gen/livemerge/v1/operation_pb";
import { OperationState } from "../gen/livemerge/v1/operation_pb";
import { PAGE_SIZE, readPages } from "../api/pages";
import { pause } from "./feed";

/** While some go on, and somebody looks. */
const LOOKED_AT_MS = 1_000;
/** While none goes on, or nobody looks: events tell of new ones at once. */
const IDLE_MS = 10_000;
/** However fast events come, so long lies between two looks. */
const LEAST_MS = 150;

const OPEN = [OperationState.QUEUED, OperationState.RUNNING];

/** Looks until `signal` ends it. `woken` ends a pause early. */
export async function followOpen(
  clients: Clients,
  woken: () => Promise<void>,
  found: (operations: Operation[]) => void,
  signal: AbortSignal,
): Promise<void> {
  // A look that failed says nothing: as long as it is so, what was seen before it counts.
  let busy = true;
  while (!signal.aborted) {
    try {
      const { items } = await readPages(async (pageToken) => {
        const request = { states: OPEN, pageSize: PAGE_SIZE, pageToken };
        const page = await clients.operations.listOperations(request);
        return { items: page.operations, next: page.nextPageToken };
      });
      busy = items.length > 0;
      if (!signal.aborted) found(items);
    } catch {
      // The feed shows that the server is away; this look is made again.
    }
    await pause(LEAST_MS, signal);
    const looked = busy && document.visibilityState === "visible";
    const early = new AbortController();
    await Promise.race([pause(looked ? LOOKED_AT_MS : IDLE_MS, AbortSignal.any([signal, early.signal])), woken()]);
    early.abort();
  }
}
