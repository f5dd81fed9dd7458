// Pages of a list. The token is the number of the next item.

export function page<T>(items: readonly T[], size: number, token: string): { items: T[]; nextPageToken: string } {
  const first = token === "" ? 0 : Number(token);
  const end = first + (size || 100);
  return { items: items.slice(first, end), nextPageToken: end < items.length ? String(end) : "" };
}
