// Others' text, isolated: a name that is written from right to left turns nothing around it.

import { visible } from "../logic/text";

export function Name({ of, class: kind }: { of: string; class?: string }) {
  return <bdi class={kind}>{visible(of)}</bdi>;
}

/** An id or a volume's name: monospaced, and it breaks anywhere. */
export function Code({ of, title }: { of: string; title?: string }) {
  return (
    <code title={title}>
      <bdi>{visible(of)}</bdi>
    </code>
  );
}
