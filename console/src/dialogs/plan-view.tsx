// The plan of a delete, disk by disk: the chain before and after, and what it costs.

import type { DiskChange } from "../logic/plan";
import type { MergePlan } from "../gen/livemerge/v1/snapshot_service_pb";
import { Badge } from "../ui/badge";
import { ChainDrawing } from "../ui/chain-drawing";
import { MARKS, commonScale } from "../logic/chain";
import { Code } from "../ui/text";
import { Volumes } from "../ui/volumes";
import { bytesOr } from "../logic/bytes";
import { room } from "../logic/plan";
import { seconds, span } from "../logic/time";
import { visible } from "../logic/text";
import { volumeKey } from "../logic/names";
import { warningReason, wayWords } from "../logic/words";

export function PlanView({ changes }: { changes: readonly DiskChange[] }) {
  return (
    <>
      {changes.map((change) => (
        <DiskPlan key={change.disk} change={change} />
      ))}
    </>
  );
}

function DiskPlan({ change }: { change: DiskChange }) {
  const { disk, merges, before, after } = change;
  // One scale for both, so that the drawing shows what is given back.
  const sizes = (layers: DiskChange["before"]) => layers.map((layer) => layer.allocated);
  const scale = commonScale(sizes(before), sizes(after));
  return (
    <article class="card">
      <h3>
        <Code of={disk} />
      </h3>
      <p class="faint">Now</p>
      <ChainDrawing disk={disk} layers={before} scale={scale} />
      <p class="faint">Then</p>
      <ChainDrawing disk={disk} layers={after} scale={scale} />
      {merges.map((merge) => (
        <Numbers key={merge.round} merge={merge} rounds={merges.length} />
      ))}
    </article>
  );
}

function Numbers({ merge, rounds }: { merge: MergePlan; rounds: number }) {
  const space = room(merge);
  return (
    <>
      <p>
        {rounds > 1 && <span class="faint">Round {merge.round + 1}: </span>}
        {wayWords(merge.kind)}.
      </p>
      <dl class="facts">
        <dt>
          <span class="mark-kept">{MARKS.kept}</span> Written
        </dt>
        <dd>
          <Code of={volumeKey(merge.kept)} />
        </dd>
        <dt>
          <span class="mark-removed">{MARKS.removed}</span> Removed
        </dt>
        <dd>
          <Volumes of={merge.removed} />
        </dd>
        <dt>Copies</dt>
        <dd>
          {bytesOr(merge.copyBytes, "nothing")}
          {merge.copyBytesGuessed && " (guessed)"}
          <span class="faint">; the other way: {bytesOr(merge.otherWayBytes, "not possible")}</span>
        </dd>
        <dt>Space</dt>
        <dd>
          {space.words} {!space.enough && <Badge tone="bad">not enough</Badge>}
        </dd>
        <dt>Gives back</dt>
        <dd>{bytesOr(merge.freedBytes, "nothing")}</dd>
        <dt>Takes</dt>
        <dd>{merge.estimatedTime ? `about ${span(seconds(merge.estimatedTime))}` : "a time that is not known yet"}</dd>
      </dl>
      {merge.warnings.map((warning) => (
        <p key={warning.reason} class="note">
          <strong>{warningReason(warning.reason)}</strong> <bdi>{visible(warning.message)}</bdi>
        </p>
      ))}
    </>
  );
}
