// The door. The token goes into the memory of this page, and if wished into the tab's session; nowhere else.

import type { Clients } from "../api/clients";
import type { Problem } from "../api/problem";
import { ProblemBox } from "../ui/problem";
import { signIn } from "../session/session";
import { useState } from "preact/hooks";

export function SignInPage({ clients, problem }: { clients: Clients; problem: Problem | undefined }) {
  const [token, setToken] = useState("");
  const [keep, setKeep] = useState(true);
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    await signIn(clients, token.trim(), keep);
    setBusy(false);
  };
  return (
    <main class="door">
      <form class="card" onSubmit={(event) => void submit(event)}>
        <h1>LiveMerge</h1>
        <label class="field">
          <span>Bearer token</span>
          <input type="password" autocomplete="off" spellcheck={false} required value={token} onInput={(event) => setToken(event.currentTarget.value)} autofocus />
        </label>
        <label class="check">
          <input type="checkbox" checked={keep} onChange={(event) => setKeep(event.currentTarget.checked)} />
          <span>Stay signed in when this tab is reloaded</span>
        </label>
        {problem && <ProblemBox problem={problem} />}
        <button type="submit" class="primary" disabled={busy || token.trim() === ""}>
          {busy ? "Looking…" : "Sign in"}
        </button>
        <p class="faint">It is the token that the command line reads with <code class="whole">--token-file</code>. A viewer's token shows everything and changes nothing.</p>
      </form>
    </main>
  );
}
