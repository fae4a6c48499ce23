import { useCallback, useEffect, useRef, useState } from "react";
import { isAbort, told } from "../api/errors";

export interface Loaded<T> {
  /** What came last; stays while it is asked for again, and when that fails. */
  data: T | null;
  error: { message: string; code: string | null } | null;
  loading: boolean;
  again: () => void;
}

/**
 * What `load` gives, asked for again when `key` changes, on `again`, and every `every` ms while the page is seen.
 */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>, every?: number): Loaded<T> {
  const [state, setState] = useState<{ key: string; data: T | null; error: Loaded<T>["error"]; loading: boolean }>({
    key,
    data: null,
    error: null,
    loading: true,
  });
  const [round, setRound] = useState(0);
  const loader = useRef(load);
  loader.current = load;

  useEffect(() => {
    const end = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async () => {
      setState((was) => (was.key === key ? { ...was, loading: true } : { key, data: null, error: null, loading: true }));
      try {
        const data = await loader.current(end.signal);
        if (!end.signal.aborted) setState({ key, data, error: null, loading: false });
      } catch (error) {
        if (end.signal.aborted || isAbort(error)) return;
        setState((was) => ({ ...was, key, error: told(error), loading: false }));
      }
      if (every !== undefined && !end.signal.aborted) timer = setTimeout(tick, every);
    };
    const tick = () => {
      if (document.hidden) timer = setTimeout(tick, every);
      else void ask();
    };
    void ask();
    return () => {
      end.abort();
      clearTimeout(timer);
    };
  }, [key, round, every]);

  const again = useCallback(() => setRound((round) => round + 1), []);
  return state.key === key
    ? { data: state.data, error: state.error, loading: state.loading, again }
    : { data: null, error: null, loading: true, again };
}
