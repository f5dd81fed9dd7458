import { points, type Sample } from "../logic/spark";
import { rate } from "../logic/bytes";

/** The rate of the last two minutes. */
export function Sparkline({ samples }: { samples: readonly Sample[] }) {
  const [width, height] = [160, 32];
  const last = samples.at(-1)?.value ?? 0;
  const most = Math.max(...samples.map((sample) => sample.value), 0);
  return (
    <svg class="spark" viewBox={`0 -2 ${width} ${height + 4}`} role="img" aria-label={`Rate now ${rate(last)}, at most ${rate(most)}`} preserveAspectRatio="none">
      <polyline points={points(samples, width, height)} vector-effect="non-scaling-stroke" />
    </svg>
  );
}
