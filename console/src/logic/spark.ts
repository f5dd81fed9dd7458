// A line of the last values.

/** Values over time, the newest last. */
export interface Sample {
  readonly at: number;
  readonly value: number;
}

/** Adds a sample; keeps the last `most`. A second one of the same moment takes the first one's place. */
export function sampled(samples: readonly Sample[], next: Sample, most = 120): Sample[] {
  const earlier = samples.filter((sample) => sample.at < next.at);
  return [...earlier, next].slice(-most);
}

/** The points of an SVG polyline in a box; empty for less than two values. */
export function points(samples: readonly Sample[], width: number, height: number): string {
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined || samples.length < 2) return "";
  const span = Math.max(last.at - first.at, 1);
  const most = Math.max(...samples.map((sample) => sample.value), 1);
  const one = (sample: Sample) => {
    const x = ((sample.at - first.at) / span) * width;
    const y = height - (Math.max(sample.value, 0) / most) * height;
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  };
  return samples.map(one).join(" ");
}
