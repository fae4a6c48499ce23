import { useEffect, useState } from "react";
import { told } from "../api/errors";
import { Api, type Credential } from "../api/session";
import { Problem } from "../ui/States";
import { type SignInConfig, signInConfig } from "./config";

type Told = ReturnType<typeof told>;

/** What a key or token may do. Throws if the server takes it for nobody's. */
export async function examine(credential: Credential): Promise<{ api: Api; operator: boolean }> {
  const api = new Api(credential);
  await api.get("/models");
  const operator = await api.admin.get("/turns", { limit: 1 }).then(
    () => true,
    () => false,
  );
  return { api, operator };
}

/** Leaves for the issuer. What it takes is loaded now: who has a key never needs it. */
export async function signInBy(config: SignInConfig): Promise<void> {
  const { begin } = await import("./oidc");
  await begin(config);
}

export function SignIn({ problem, onKey }: { problem: Told | null; onKey: (key: string) => Promise<void> }) {
  const [config, setConfig] = useState<SignInConfig | null>(null);
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Told | null>(problem);

  useEffect(() => {
    void signInConfig().then(setConfig);
  }, []);

  const attempt = async (work: () => Promise<void>) => {
    setBusy(true);
    setError(null);
    try {
      await work();
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
          void attempt(() => onKey(key.trim()));
        }}
      >
        <h1>Colloquy</h1>
        {config && (
          <>
            <button type="button" className="primary" disabled={busy} onClick={() => void attempt(() => signInBy(config))}>
              Sign in with {new URL(config.issuer).host}
            </button>
            <p className="or">or</p>
          </>
        )}
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
        <button type="submit" className={config ? "" : "primary"} disabled={busy || !key.trim()}>
          {busy ? "…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
