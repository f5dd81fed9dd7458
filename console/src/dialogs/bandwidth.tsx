// The limit of an operation's copy, changed while it runs.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Problem } from "../api/problem";
import { ProblemBox } from "../ui/problem";
import { UNLIMITED, limitAt, limitWords, placeOf } from "../logic/bandwidth";
import { mayChange } from "../session/session";
import { mutate } from "../api/mutate";
import { problemOf } from "../api/problem";
import { useApp } from "../state/app";
import { useState } from "preact/hooks";

export function Bandwidth({ operation, onChanged }: { operation: Operation; onChanged: () => void }) {
  const { clients, hub } = useApp();
  // The hand's place while it moves; the operation's own otherwise.
  const [held, hold] = useState<number>();
  const [problem, setProblem] = useState<Problem>();
  const place = held ?? placeOf(operation.bytesPerSecond);
  const limit = held === undefined ? operation.bytesPerSecond : limitAt(held);
  const apply = async (wanted: number) => {
    setProblem(undefined);
    try {
      await mutate(() => clients.operations.updateOperation({ operationId: operation.id, bytesPerSecond: BigInt(limitAt(wanted)) }));
      hub.look();
      onChanged();
    } catch (thrown) {
      setProblem(problemOf(thrown));
    }
    hold(undefined);
  };
  return (
    <div class="grow">
      <label class="field">
        <span>Bandwidth: {limitWords(limit)}</span>
        <input
          type="range"
          min={0}
          max={UNLIMITED}
          value={place}
          disabled={!mayChange()}
          aria-valuetext={limitWords(limit)}
          onInput={(event) => hold(Number(event.currentTarget.value))}
          onChange={(event) => void apply(Number(event.currentTarget.value))}
        />
      </label>
      {problem && <ProblemBox problem={problem} />}
    </div>
  );
}
