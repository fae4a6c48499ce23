import { useApi, type Api } from "../api/session";
import { type Loaded, useLoad } from "../ui/useLoad";
import { LOOK } from "./parts";
import { History, KEPT_MS, parse } from "./metrics";

/** What charts of the server's own figures are drawn from. */
export const METRICS = [
  "http_server_request_duration_seconds",
  "gen_ai_server_time_to_first_token_seconds",
  "gen_ai_server_request_duration_seconds",
  "gen_ai_client_operation_duration_seconds",
  "colloquy_turns_ended_total",
  "colloquy_llm_attempts_total",
  "colloquy_llm_retries_total",
  "colloquy_external_errors_total",
  "colloquy_external_failing",
  "colloquy_access_refused_total",
  "colloquy_rate_limited_total",
  "colloquy_budget_refused_total",
  "colloquy_database_errors_total",
] as const;

/** What was seen so far: by whoever is signed in, and gone with the page. */
const HISTORIES = new WeakMap<Api, Map<string, unknown>>();

function kept<T>(api: Api, name: string, make: () => T): T {
  const all = HISTORIES.get(api) ?? new Map<string, unknown>();
  HISTORIES.set(api, all);
  if (!all.has(name)) all.set(name, make());
  return all.get(name) as T;
}

/** The metrics of the processes that answer, looked at while a page shows them. */
export function useMetrics(): Loaded<{ history: History; now: number }> {
  const api = useApi();
  return useLoad(
    "metrics",
    async (signal) => {
      const text = await api.health.get<string>("/metrics", signal);
      const [history, now] = [kept(api, "metrics", () => new History()), Date.now()];
      history.add(parse(text, METRICS), now);
      return { history, now };
    },
    LOOK,
  );
}

export interface Seen<T> {
  /** In ms. */
  at: number;
  value: T;
}

/** What `load` gave each time, for an hour, oldest first. */
export function useSeen<T>(name: string, load: (signal: AbortSignal) => Promise<T>): Loaded<readonly Seen<T>[]> {
  const api = useApi();
  return useLoad(
    name,
    async (signal) => {
      const value = await load(signal);
      const [seen, at] = [kept<{ all: readonly Seen<T>[] }>(api, name, () => ({ all: [] })), Date.now()];
      if (!signal.aborted) seen.all = [...seen.all.filter((one) => at - one.at <= KEPT_MS), { at, value }];
      return seen.all;
    },
    LOOK,
  );
}
