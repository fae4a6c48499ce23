import type { Model, Tokens } from "../api/types";

/**
 * What a turn's tokens cost by the model's listed price, in micro-units. Listed is the most its deployments ask, so
 * this is an upper bound; what was paid stands under Usage.
 */
export function cost(tokens: Tokens, price: Model["price"]): number {
  const cached = tokens.input_tokens_details?.cached_tokens ?? 0;
  const fresh = Math.max(0, tokens.input_tokens - cached);
  return (fresh * price.input + cached * price.cached_input + tokens.output_tokens * price.output) / 1_000_000;
}

/** What a turn used, as it stands under its answer. */
export interface Spent {
  model: string;
  tokens: Tokens;
}

const KEY = "colloquy.spent";
const MOST = 500;

/** By the id of an answer's last item: the list of a conversation's items does not say what they used. */
export function spentOn(item: string): Spent | undefined {
  return all()[item];
}

export function remember(item: string, spent: Spent): void {
  const entries = Object.entries({ ...all(), [item]: spent }).slice(-MOST);
  sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(entries)));
}

function all(): Record<string, Spent> {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as Record<string, Spent>;
  } catch {
    return {};
  }
}
