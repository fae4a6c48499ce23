import type { Item, Part, ResponseStatus, StreamEvent, Tokens } from "../api/types";

/** An answer as far as it has come. A new object whenever something changed. */
export interface Turn {
  id: string | null;
  status: ResponseStatus;
  model: string | null;
  items: Item[];
  usage: Tokens | null;
  /** Why it failed, or ended before its end. */
  problem: string | null;
}

export const NEW_TURN: Turn = { id: null, status: "queued", model: null, items: [], usage: null, problem: null };

const LAST = new Set(["response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"]);

/** Whether nothing comes behind this event. */
export function isLast(event: StreamEvent): boolean {
  return LAST.has(event.type);
}

export function isRunning(turn: Turn): boolean {
  return turn.status === "queued" || turn.status === "in_progress";
}

/** The turn after one more event. Events that are not known change nothing. */
export function reduce(turn: Turn, event: StreamEvent): Turn {
  const at = event.output_index ?? 0;
  switch (event.type) {
    case "response.created":
    case "response.queued":
    case "response.in_progress":
      return event.response
        ? { ...turn, id: event.response.id, status: event.response.status, model: event.response.model }
        : turn;
    case "response.output_item.added":
    case "response.output_item.done":
      return event.item ? { ...turn, items: placed(turn.items, at, event.item) } : turn;
    case "response.content_part.added":
    case "response.content_part.done":
      return withPart(turn, event, () => event.part ?? { type: "output_text", text: "" });
    case "response.output_text.delta":
    case "response.reasoning.delta":
    case "response.reasoning_text.delta":
      return withPart(turn, event, (part) => ({ ...part, text: (part.text ?? "") + (event.delta ?? "") }));
    case "response.output_text.done":
    case "response.reasoning.done":
    case "response.reasoning_text.done":
    case "colloquy:output_text_retracted":
      return withPart(turn, event, (part) => ({ ...part, text: event.text ?? "" }));
    case "response.refusal.delta":
      return withPart(turn, event, (part) => ({
        type: "refusal",
        refusal: (part.refusal ?? "") + (event.delta ?? ""),
      }));
    case "response.refusal.done":
      return withPart(turn, event, () => ({ type: "refusal", refusal: event.refusal ?? "" }));
    case "response.reasoning_summary_part.added":
      return withSummary(turn, event, () => event.part ?? { type: "summary_text", text: "" });
    case "response.reasoning_summary_text.delta":
      return withSummary(turn, event, (part) => ({ ...part, text: (part.text ?? "") + (event.delta ?? "") }));
    case "response.reasoning_summary_text.done":
      return withSummary(turn, event, (part) => ({ ...part, text: event.text ?? "" }));
    case "response.function_call_arguments.delta":
      return withItem(turn, at, (item) => ({ ...item, arguments: (item.arguments ?? "") + (event.delta ?? "") }));
    case "response.function_call_arguments.done":
      return withItem(turn, at, (item) => ({ ...item, arguments: event.arguments ?? "" }));
    case "response.completed":
    case "response.incomplete":
    case "response.failed":
    case "response.cancelled":
      return ended(turn, event);
    case "error":
      return { ...turn, status: "failed", problem: event.error?.message ?? event.message ?? "The turn failed." };
    default:
      return turn;
  }
}

function ended(turn: Turn, event: StreamEvent): Turn {
  const response = event.response;
  if (!response) return turn;
  const reason = response.incomplete_details?.reason;
  return {
    id: response.id,
    status: response.status,
    model: response.model,
    items: response.output,
    usage: response.usage,
    problem: response.error?.message ?? (reason ? INCOMPLETE[reason] ?? `It ended early: ${reason}.` : null),
  };
}

const INCOMPLETE: Record<string, string> = {
  max_output_tokens: "The answer reached its greatest length.",
  interrupted: "The server that gave the answer was lost. What it said stands; Regenerate asks again.",
  content_filter: "The provider's content filter ended the answer.",
};

function placed<T>(list: readonly T[], at: number, value: T): T[] {
  const copy = [...list];
  copy[at] = value;
  return copy;
}

function withItem(turn: Turn, at: number, change: (item: Item) => Item): Turn {
  const item = turn.items[at];
  return item ? { ...turn, items: placed(turn.items, at, change(item)) } : turn;
}

function withPart(turn: Turn, event: StreamEvent, change: (part: Part) => Part): Turn {
  return withItem(turn, event.output_index ?? 0, (item) => {
    const parts = Array.isArray(item.content) ? item.content : [];
    const at = event.content_index ?? 0;
    const usual = item.type === "reasoning" ? "reasoning_text" : "output_text";
    return { ...item, content: placed(parts, at, change(parts[at] ?? { type: usual, text: "" })) };
  });
}

function withSummary(turn: Turn, event: StreamEvent, change: (part: Part) => Part): Turn {
  return withItem(turn, event.output_index ?? 0, (item) => {
    const parts = item.summary ?? [];
    const at = event.summary_index ?? 0;
    return { ...item, summary: placed(parts, at, change(parts[at] ?? { type: "summary_text", text: "" })) };
  });
}
