// The limit of an operation's copy, changed while it runs.

import type { Operation } from "../gen/livemerge/v1/operation_pb";
import type { Problem } from "../api/problem";
import { ProblemBox } from "../ui/problem";
import { UNLIMITED, limitAt, limitWords, placeOf } from "../logic/bandwidth";
import { latest } from "../state/latest";
import { mayChange } from "../session/session";
import { mutate } from "../api/mutate";
import { problemOf } from "../api/problem";
import { useApp } from "../state/app";
import { useEffect, useRef, useState } from "preact/hooks";

export function Bandwidth({ operation, onChanged }: { operation: Operation; onChanged: () => void }) {
  const { clients, hub } = useApp();
  // The hand's place until the operation shows it; the operation's own otherwise.
  const [held, hold] = useState<number>();
  // The operation as it was when it took the last limit.
  const [taken, take] = useState<bigint>();
  const [problem, setProblem] = useState<Problem>();
  const place = held ?? placeOf(operation.bytesPerSecond);
  const limit = held === undefined ? operation.bytesPerSecond : limitAt(held);
  const move = (to: number) => {
    hold(to);
    take(undefined);
  };
  const send = async (wanted: number) => {
    setProblem(undefined);
    try {
      const answer = await mutate(() => clients.operations.updateOperation({ operationId: operation.id, bytesPerSecond: BigInt(limitAt(wanted)) }));
      take(answer.operation?.revision ?? 0n);
      hub.look();
      onChanged();
    } catch (thrown) {
      setProblem(problemOf(thrown));
      hold(undefined);
    }
  };
  const current = useRef(send);
  current.current = send;
  const [apply] = useState(() => latest((wanted: number) => current.current(wanted)));
  useEffect(() => {
    if (taken !== undefined && operation.revision >= taken) hold(undefined);
  }, [taken, operation.revision]);
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
          onInput={(event) => move(Number(event.currentTarget.value))}
          onChange={(event) => apply(Number(event.currentTarget.value))}
        />
      </label>
      {problem && <ProblemBox problem={problem} />}
    </div>
  );
}
