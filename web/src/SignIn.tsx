import { useState } from "react";
import { told } from "./api/errors";
import { Api, type Signed } from "./api/session";
import { Problem } from "./ui/States";

/** What a key may do. Throws if the server knows no such key. */
export async function examine(key: string): Promise<{ api: Api; operator: boolean }> {
  const api = new Api(key);
  await api.get("/models");
  const operator = await api.admin.get("/turns", { limit: 1 }).then(
    () => true,
    () => false,
  );
  return { api, operator };
}

export function SignIn({ onSigned }: { onSigned: (key: string, signed: Omit<Signed, "signOut">) => void }) {
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ReturnType<typeof told> | null>(null);
  const submit = async () => {
    setBusy(true);
    setError(null);
    try {
      onSigned(key.trim(), await examine(key.trim()));
    } catch (problem) {
      setError(told(problem));
      setBusy(false);
    }
  };
  return (
    <main className="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <h1>Colloquy</h1>
        <label>
          API key
          <input
            type="password"
            autoComplete="off"
            autoFocus
            required
            placeholder="clq_…"
            value={key}
            onChange={(event) => setKey(event.target.value)}
          />
        </label>
        <p className="note">Kept in this tab until it is closed, and sent to this server alone.</p>
        {error && <Problem error={error} />}
        <button type="submit" className="primary" disabled={busy || !key.trim()}>
          {busy ? "…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
