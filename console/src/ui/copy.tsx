// A command to copy. Without the clipboard, which pages without TLS do not have, the text is selected instead.

import { useRef, useState } from "preact/hooks";
import type { Commands } from "../logic/commands";

export function Copyable({ label, text }: { label: string; text: string }) {
  const [copied, setCopied] = useState(false);
  const shown = useRef<HTMLElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setTimeout(() => setCopied(false), 2_000);
    } catch {
      if (shown.current) getSelection()?.selectAllChildren(shown.current);
    }
  };
  return (
    <div class="copyable">
      <span class="label">{label}</span>
      <code ref={shown} dir="ltr" tabIndex={0}>
        {text}
      </code>
      <button type="button" onClick={() => void copy()}>
        {copied ? "Copied" : "Copy"}
        <span class="unseen"> the {label} command</span>
      </button>
    </div>
  );
}

export function CommandBox({ commands, summary = "The same by hand" }: { commands: Commands; summary?: string }) {
  return (
    <details class="commands">
      <summary>{summary}</summary>
      <Copyable label="CLI" text={commands.cli} />
      <Copyable label="grpcurl" text={commands.grpcurl} />
      <p class="faint">
        Both take the server from the environment: LIVEMERGE_SERVER for the CLI, LIVEMERGE_ADDRESS for grpcurl, and the
        token from the file LIVEMERGE_TOKEN_FILE.
      </p>
    </details>
  );
}
