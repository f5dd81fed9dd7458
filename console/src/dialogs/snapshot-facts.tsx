// What a snapshot is, beside what can be changed of it.

import type { Snapshot } from "../gen/livemerge/v1/snapshot_service_pb";
import { Code } from "../ui/text";
import { Fact } from "../ui/problem";
import { FullTime } from "../ui/time";
import { consistencyWords, originWords, snapshotState } from "../logic/words";
import { visible, visibleLines } from "../logic/text";
import { volumeKey } from "../logic/names";

/** `all`: with what the form has, for whom there is no form. */
export function SnapshotFacts({ snapshot, all }: { snapshot: Snapshot; all: boolean }) {
  const labels = Object.entries(snapshot.labels);
  return (
    <dl class="facts">
      {all && (
        <>
          <dt>Name</dt>
          <dd dir="auto">{visible(snapshot.name)}</dd>
          <dt>Description</dt>
          <dd dir="auto">{visibleLines(snapshot.description) || "none"}</dd>
          <dt>Labels</dt>
          <dd>{labels.length === 0 ? "none" : labels.map(([key, value]) => <Code key={key} of={`${key}=${value}`} />)}</dd>
          <dt>Protected</dt>
          <dd>{snapshot.deletionProtected ? "yes" : "no"}</dd>
        </>
      )}
      <dt>Taken</dt>
      <dd>
        <FullTime at={snapshot.createdAt} />
      </dd>
      <dt>State</dt>
      <dd>{snapshotState(snapshot.state)}</dd>
      <dt>Consistency</dt>
      <dd>{consistencyWords(snapshot.consistency)}</dd>
      <dt>Origin</dt>
      <dd>{originWords(snapshot.origin)}</dd>
      {snapshot.disks.map(({ disk, volume }) => (
        <Fact key={disk} name={disk} value={volumeKey(volume)} />
      ))}
      <Fact name="Id" value={snapshot.id} />
    </dl>
  );
}
