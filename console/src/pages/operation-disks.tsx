// The disks of an operation: how far each is, and its chain, which takes its new shape at the end.

import type { DiskProgress, Operation } from "../gen/livemerge/v1/operation_pb";
import type { Layer } from "../logic/chain";
import { Badge } from "../ui/badge";
import { Bar } from "../ui/bar";
import { ChainDrawing } from "../ui/chain-drawing";
import { MARKS } from "../logic/chain";
import { Code } from "../ui/text";
import { MergePhase, type Failure } from "../gen/livemerge/v1/merge_pb";
import { ReasonBox } from "../ui/problem";
import { Volumes } from "../ui/volumes";
import { adviceFor } from "../logic/reasons";
import { bytes, bytesOr, rate } from "../logic/bytes";
import { dirtyBytes, fraction, gaveUp, guestWrote, mergeHasEnded } from "../logic/progress";
import { layersByDisk, useChains, useSnapshots } from "../state/machine";
import { mergePhase, wayWords } from "../logic/words";
import { seconds, span } from "../logic/time";
import { useMemo } from "preact/hooks";
import { volumeKey } from "../logic/names";

export function DiskCards({ operation }: { operation: Operation }) {
  const chains = useChains(operation.vmId);
  const snapshots = useSnapshots(operation.vmId);
  const layers = useMemo(() => layersByDisk(chains.data, snapshots.data ?? []), [chains.data, snapshots.data]);
  const disks = [...new Set(operation.disks.map((disk) => disk.disk))];
  return (
    <>
      {disks.map((disk) => {
        const merges = operation.disks.filter((each) => each.disk === disk);
        return <DiskCard key={disk} disk={disk} merges={merges} layers={layers.get(disk)} waiting={chains.data === undefined && !chains.problem} known={operation.failure} />;
      })}
    </>
  );
}

interface Props {
  readonly disk: string;
  readonly merges: readonly DiskProgress[];
  readonly layers: readonly Layer[] | undefined;
  /** The chains are still being read. */
  readonly waiting: boolean;
  /** The failure that the page shows already. */
  readonly known: Failure | undefined;
}

function DiskCard({ disk, merges, layers, waiting, known }: Props) {
  return (
    <article class="card">
      <h2 class="small">
        <Code of={disk} />
      </h2>
      {layers ? <ChainDrawing disk={disk} layers={layers.map((layer) => inMerge(layer, merges))} /> : waiting && <div class="bone drawing" />}
      {merges.map((merge) => (
        <MergeRow key={merge.round} merge={merge} rounds={merges.length} known={known} />
      ))}
    </article>
  );
}

/** The part of a layer while the merge is open; afterwards the chain is what it is. */
function inMerge(layer: Layer, merges: readonly DiskProgress[]): Layer {
  const open = merges.filter((merge) => !mergeHasEnded(merge));
  if (open.some((merge) => merge.removed.some((volume) => volumeKey(volume) === layer.key))) return { ...layer, role: "removed" };
  if (open.some((merge) => volumeKey(merge.kept) === layer.key)) return { ...layer, role: "kept" };
  return layer;
}

function tone(phase: MergePhase) {
  if (phase === MergePhase.FAILED) return "bad" as const;
  if (phase === MergePhase.CANCELLED || phase === MergePhase.CANCELLING) return "warn" as const;
  return phase === MergePhase.REMOVED || phase === MergePhase.MERGED ? ("good" as const) : ("busy" as const);
}

function MergeRow({ merge, rounds, known }: { merge: DiskProgress; rounds: number; known: Failure | undefined }) {
  const left = seconds(merge.timeLeft);
  const pause = seconds(merge.longestPause);
  const wrote = guestWrote(merge);
  const speed = Number(merge.bytesPerSecond);
  const over = mergeHasEnded(merge);
  const copies = !gaveUp(merge);
  return (
    <div class="merge">
      <div class="line">
        {rounds > 1 && <span class="faint">Round {merge.round + 1}</span>}
        <Badge tone={tone(merge.phase)}>{mergePhase(merge.phase)}</Badge>
        <span class="faint">{wayWords(merge.kind)}</span>
      </div>
      {copies && <Bar done={fraction(merge)} label={`${merge.disk} copied`} />}
      <dl class="facts wide">
        {copies && (
          <>
            <dt>Copied</dt>
            <dd>
              {bytes(merge.doneBytes)} of {bytesOr(merge.totalBytes, bytesOr(merge.plannedBytes, "not known"))}
              {merge.plannedBytesGuessed && " (guessed)"}
            </dd>
          </>
        )}
        {!over && (
          <>
            <dt>Still to copy</dt>
            <dd>{bytes(dirtyBytes(merge))}</dd>
            <dt>Rate</dt>
            <dd>{speed > 0 ? rate(speed) : "–"}</dd>
            <dt>Time left</dt>
            <dd>{left === undefined ? "–" : span(left)}</dd>
          </>
        )}
        {copies && (
          <>
            <dt>Written meanwhile</dt>
            <dd>{wrote > 0 ? `${bytes(wrote)} by the guest` : "nothing"}</dd>
            <dt>Guest stood still</dt>
            <dd>{pause === undefined || pause === 0 ? `not at all${over ? "" : " yet"}` : span(pause)}</dd>
          </>
        )}
        <dt>Given back</dt>
        <dd>
          {bytes(merge.freedBytes)}
          {Number(merge.plannedFreedBytes) > 0 && <span class="faint"> of {bytes(merge.plannedFreedBytes)} planned</span>}
        </dd>
        <dt>
          <span class="mark-kept">{MARKS.kept}</span> Kept
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
      </dl>
      {merge.failure && merge.failure.message !== known?.message && <ReasonBox reason={merge.failure.reason} message={merge.failure.message} advice={adviceFor(merge.failure.reason)} />}
    </div>
  );
}
