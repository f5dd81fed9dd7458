// Sizes and rates for people, in the units that the command line uses, too.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

/** A size: `1.50 GiB`. */
export function bytes(size: bigint | number): string {
  let value = Number(size);
  if (!Number.isFinite(value) || value < 0) return "–";
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** The server's word for "not known" is 0: then `none`. */
export function bytesOr(size: bigint | number, none: string): string {
  return Number(size) > 0 ? bytes(size) : none;
}

/** A rate: `80.0 MiB/s`. */
export function rate(bytesPerSecond: bigint | number): string {
  return `${bytes(bytesPerSecond)}/s`;
}
