// Condemned volumes: no longer under their names, kept for a while, and restored from here.

import type { Event } from "../gen/livemerge/v1/event_service_pb";
import type { Removal } from "../gen/livemerge/v1/removal_pb";
import { Badge } from "../ui/badge";
import { Code } from "../ui/text";
import { CommandBox } from "../ui/copy";
import { Confirm } from "../ui/confirm";
import { Empty, Loading } from "../ui/empty";
import { PAGE_SIZE, readPages } from "../api/pages";
import { ReadProblem } from "../ui/read-problem";
import { Time } from "../ui/time";
import { cli, grpcurl } from "../logic/commands";
import { mayChange } from "../session/session";
import { useApp } from "../state/app";
import { useResource } from "../state/resource";
import { useState } from "preact/hooks";
import { volumeKey } from "../logic/names";

const LOOK_MS = 20_000;

export function Removals({ events }: { events: (event: Event) => boolean }) {
  const { clients } = useApp();
  const [asked, ask] = useState<Removal>();
  const fetch = async () => {
    const { items } = await readPages(async (pageToken) => {
      const page = await clients.inventory.listRemovals({ pageSize: PAGE_SIZE, pageToken });
      return { items: page.removals, next: page.nextPageToken };
    });
    return items;
  };
  const { data, problem, refresh } = useResource("removals", fetch, { events, everyMs: LOOK_MS });
  return (
    <>
      <h2>Condemned volumes</h2>
      <ReadProblem problem={problem} onRetry={refresh} />
      {data === undefined && !problem && <Loading />}
      {data?.length === 0 && (
        <Empty title="Nothing is condemned">
          <p>A merged volume is removed from its domain. Where the domain keeps what it removes, it stands here until its time is over, and can be brought back.</p>
        </Empty>
      )}
      <ul class="plain">{data?.map((removal) => <Row key={removal.id} removal={removal} onRestore={() => ask(removal)} />)}</ul>
      {asked && <Restore removal={asked} onClose={() => (ask(undefined), refresh())} />}
    </>
  );
}

function Row({ removal, onRestore }: { removal: Removal; onRestore: () => void }) {
  const kept = removal.keepUntil !== undefined;
  return (
    <li class="row still">
      <span class="main">
        <Code of={volumeKey(removal.volume)} title={removal.identity} />
        <small class="faint line tight">
          <span>
            condemned <Time at={removal.condemnedAt} none="earlier" />
          </span>
          {kept && (
            <span>
              goes for good <Time at={removal.keepUntil} />
            </span>
          )}
        </small>
      </span>
      <Badge tone={kept ? "calm" : "busy"}>{kept ? "kept" : "being freed"}</Badge>
      <button type="button" disabled={!kept || !mayChange()} onClick={onRestore} title={kept ? "" : "Its space is being freed: it cannot be brought back."}>
        Restore…
      </button>
    </li>
  );
}

function Restore({ removal, onClose }: { removal: Removal; onClose: () => void }) {
  const { clients } = useApp();
  const storage = removal.volume?.storage ?? "";
  const act = async (requestId: string) => {
    const { volume } = await clients.inventory.restoreVolume({ requestId, storage, removalId: removal.id });
    return (
      <p>
        <Code of={volumeKey(volume)} /> is back under its name. No chain has it.
      </p>
    );
  };
  return (
    <Confirm title="Restore a volume" verb="Restore it" act={act} onClose={onClose}>
      <p>
        <Code of={volumeKey(removal.volume)} /> comes back under its name. It is in no chain then: it has its own data, and reads through what it is built on what was
        written there since. It takes its room in the domain again.
      </p>
      <CommandBox
        commands={{
          cli: cli("volume", "restore", storage, removal.id),
          grpcurl: grpcurl("InventoryService/RestoreVolume", { storage, removal_id: removal.id }),
        }}
      />
    </Confirm>
  );
}
