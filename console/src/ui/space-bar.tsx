import { bytes } from "../logic/bytes";

/** Used, promised and free room, in hundredths of the whole. */
export function SpaceBar({ free, total, promised }: { free: number; total: number; promised: number }) {
  const part = (size: number) => (total > 0 ? Math.min(Math.max((size / total) * 100, 0), 100) : 0);
  const used = part(total - free);
  const label = `${bytes(total - free)} used, ${bytes(promised)} reserved, ${bytes(free)} free`;
  return (
    <svg class="space" width="100%" height="14" role="img" aria-label={label}>
      <title>{label}</title>
      <rect class="whole" width="100%" height="14" rx="4" />
      <rect class="used" width={`${used}%`} height="14" rx="4" />
      <rect class="promised" x={`${used}%`} width={`${part(Math.min(promised, free))}%`} height="14" />
    </svg>
  );
}
