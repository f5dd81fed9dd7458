// Storage domains, and volumes that are removed and still kept.

import type { HostStorage } from "../gen/livemerge/v1/inventory_service_pb";
import { Badge } from "../ui/badge";
import { Code } from "../ui/text";
import { Empty, Loading } from "../ui/empty";
import { Link } from "../ui/link";
import { PAGE_SIZE, readPages } from "../api/pages";
import { ReadProblem } from "../ui/read-problem";
import { Removals } from "./storage-removals";
import { SpaceBar } from "../ui/space-bar";
import { bytes } from "../logic/bytes";
import { seconds, span } from "../logic/time";
import { count, visible } from "../logic/text";
import { useApp } from "../state/app";
import { useResource } from "../state/resource";
import { EventType } from "../gen/livemerge/v1/event_service_pb";

const MOVES: ReadonlySet<EventType> = new Set([EventType.VOLUME_REMOVED, EventType.VOLUME_RESTORED, EventType.REPAIR_APPLIED, EventType.HOST_UP, EventType.SNAPSHOT_CREATED, EventType.SNAPSHOT_DELETED]);
const LOOK_MS = 15_000;

export function StoragePage() {
  const { clients } = useApp();
  const fetch = async () => {
    const silent = new Set<string>();
    const { items } = await readPages(async (pageToken) => {
      const page = await clients.inventory.listStorages({ pageSize: PAGE_SIZE, pageToken });
      for (const host of page.silentHostIds) silent.add(host);
      return { items: page.storages, next: page.nextPageToken };
    });
    return { items, silent: [...silent] };
  };
  const options = { events: (event: { type: EventType }) => MOVES.has(event.type), everyMs: LOOK_MS };
  const { data, problem, refresh } = useResource("storages", fetch, options);
  return (
    <section>
      <h1>Storage</h1>
      <ReadProblem problem={problem} onRetry={refresh} />
      {data === undefined && !problem && <Loading />}
      {data && data.silent.length > 0 && (
        <p class="note">
          {count(data.silent.length, "host")} could not tell of their domains: {data.silent.map((host) => <Code key={host} of={host} />)}
        </p>
      )}
      {data?.items.length === 0 && (
        <Empty title="No storage domain">
          <p>
            Domains are configured on each host's agent: a directory of images, a volume group, or an object store. <Link to={{ page: "hosts" }}>Look at the hosts</Link>.
          </p>
        </Empty>
      )}
      <ul class="cards">{data?.items.map((one) => <Domain key={`${one.hostId} ${one.storage?.id}`} of={one} />)}</ul>
      {(data !== undefined || problem !== undefined) && <Removals events={options.events} />}
    </section>
  );
}

function Domain({ of: { hostId, storage } }: { of: HostStorage }) {
  if (!storage) return null;
  const [free, total, promised] = [storage.freeBytes, storage.totalBytes, storage.promisedBytes].map(Number) as [number, number, number];
  const keep = seconds(storage.keepFor);
  return (
    <li class="card">
      <div class="line">
        <h2>
          <Code of={storage.id} />
        </h2>
        <span class="faint">on {hostId}</span>
        {storage.problem && <Badge tone="bad">cannot be looked at</Badge>}
      </div>
      {storage.problem ? (
        <p class="note">
          <bdi>{visible(storage.problem)}</bdi>
        </p>
      ) : (
        <>
          <SpaceBar free={free} total={total} promised={promised} />
          <dl class="facts">
            <dt>Free</dt>
            <dd>
              {bytes(free)} of {bytes(total)}
            </dd>
            <dt>Reserved</dt>
            <dd>{promised > 0 ? `${bytes(promised)} promised to open merges` : "nothing"}</dd>
            <dt>Really free</dt>
            <dd>{bytes(Math.max(free - promised, 0))}</dd>
            <dt>Volumes</dt>
            <dd>{storage.provided ? "are given room as they need it" : storage.thin ? "take what was written" : "take their whole size"}</dd>
          </dl>
        </>
      )}
      <p class="faint line">
        <span>{keep === undefined ? "Removed volumes are gone at once" : `Removed volumes are kept for ${span(keep)}`}</span>
        {storage.wipe && <Badge tone="calm">wipes</Badge>}
        {storage.discard && <Badge tone="calm">discards</Badge>}
      </p>
      {storage.foreign.length > 0 && (
        <details>
          <summary>{count(storage.foreign.length, "name")} of others, never touched</summary>
          {storage.foreign.slice(0, 200).map((name) => (
            <Code key={name} of={name} />
          ))}
        </details>
      )}
    </li>
  );
}
