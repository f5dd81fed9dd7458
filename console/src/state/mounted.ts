// Whether a component is still there when an answer comes: one may have gone back meanwhile.

import { useEffect, useRef } from "preact/hooks";

export function useMounted(): { readonly current: boolean } {
  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);
  return mounted;
}
