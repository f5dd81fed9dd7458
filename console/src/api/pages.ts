// Lists, page by page.

/** The most a page may have. */
export const PAGE_SIZE = 1000;

/** What was read, and whether there was more than was wanted. */
export interface Read<T> {
  readonly items: T[];
  readonly complete: boolean;
}

/** Reads pages until the last one, or until there are `most` items. */
export async function readPages<T>(
  page: (token: string) => Promise<{ items: T[]; next: string }>,
  most = 20_000,
): Promise<Read<T>> {
  const items: T[] = [];
  let token = "";
  do {
    const { items: more, next } = await page(token);
    items.push(...more);
    token = next;
  } while (token !== "" && items.length < most);
  return { items, complete: token === "" };
}
