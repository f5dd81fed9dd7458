// The audit log's stream: behind a token or from now on, with heartbeats.

import type { Event, WatchEventsRequest } from "../gen/livemerge/v1/event_service_pb";
import type { World } from "./world";
import { pause } from "../watch/feed";
import { seconds } from "../logic/time";

export async function* watch(world: World, request: WatchEventsRequest, signal: AbortSignal) {
  const beat = (seconds(request.heartbeatInterval) ?? 15) * 1000;
  let next = request.resumeToken === "" ? world.events.length : Number(request.resumeToken);
  yield { resumeToken: String(next) };
  while (!signal.aborted) {
    const event: Event | undefined = world.events[next];
    if (event) {
      next += 1;
      yield { event, resumeToken: String(next) };
      continue;
    }
    const over = new AbortController();
    const hear = () => over.abort();
    world.listeners.add(hear);
    signal.addEventListener("abort", hear, { once: true });
    await pause(beat, over.signal);
    world.listeners.delete(hear);
    if (!signal.aborted && world.events[next] === undefined) yield { resumeToken: String(next) };
  }
}
