// What somebody is still choosing, once the hand has come to rest.

import { useEffect, useState } from "preact/hooks";

const REST_MS = 300;

export function useSettled<T>(value: T): T {
  const [settled, settle] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => settle(value), REST_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}
