import { useCallback, useEffect, useMemo, useState } from "react";
import { told } from "../api/errors";
import { type Signed, storedKey } from "../api/session";
import { liveTurns } from "../talk/live";
import { examine, signInBy } from "./SignIn";
import { arrive } from "./arrival";
import type { SignInConfig } from "./config";
import { type SignedInBy, TokenSource, storedTokens } from "./tokens";

type Told = ReturnType<typeof told>;
type Known = { key: string } | SignedInBy;

export type Session =
  /** Nobody is known. */
  | { state: "out"; problem: Told | null; onKey: (key: string) => Promise<void> }
  /** Somebody is; whether the server takes them is not yet. */
  | { state: "entering"; error: Told | null; retry: () => void; signIn: (() => void) | null; leave: () => void }
  | { state: "in"; signed: Signed; ended: boolean };

function stored(): Known | null {
  const key = storedKey.read();
  return key === null ? storedTokens.read() : { key };
}

const credential = (known: Known, onEnd: () => void) =>
  "key" in known
    ? known.key
    : new TokenSource(known, async (config, tokens) => (await import("./oidc")).renew(config, tokens), storedTokens.write, onEnd).token;

/** Who is signed in, from the page's load to the sign-out. */
export function useSession(): Session {
  const [arriving, setArriving] = useState(() => arrive() !== null);
  const [known, setKnown] = useState<Known | null>(() => (arriving ? null : stored()));
  const [signed, setSigned] = useState<Omit<Signed, "signOut" | "again"> | null>(null);
  const [ended, setEnded] = useState(false);
  const [error, setError] = useState<Told | null>(null);

  useEffect(() => {
    arrive()
      ?.then(
        () => setKnown(stored()),
        (problem: unknown) => setError(told(problem)),
      )
      .finally(() => setArriving(false));
  }, []);

  const enter = useCallback(() => {
    if (!known || signed) return;
    setError(null);
    examine(credential(known, () => setEnded(true))).then(setSigned, (problem: unknown) => setError(told(problem)));
  }, [known, signed]);
  useEffect(enter, [enter]);

  const leave = useCallback(() => {
    if (signed) liveTurns(signed.api).close();
    storedKey.forget();
    setKnown(null);
    setSigned(null);
    setError(null);
    setEnded(false);
  }, [signed]);

  const onKey = useCallback(async (key: string) => {
    const signed = await examine(key);
    storedKey.write(key);
    setSigned(signed);
    setKnown({ key });
  }, []);

  const config = known && "config" in known ? known.config : null;
  const value = useMemo(
    () => signed && { ...signed, signOut: leave, ...(config && { again: () => signInBy(config) }) },
    [signed, leave, config],
  );

  if (value) return { state: "in", signed: value, ended };
  if (!known && !arriving) return { state: "out", problem: error, onKey };
  return { state: "entering", error, retry: enter, signIn: config && (() => leaveFor(config, setError)), leave };
}

function leaveFor(config: SignInConfig, onError: (problem: Told) => void): void {
  signInBy(config).catch((problem: unknown) => onError(told(problem)));
}
