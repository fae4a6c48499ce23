import type { Item, Part } from "../api/types";

/** All of an item's text. */
export function textOf(item: Item): string {
  if (typeof item.content === "string") return item.content;
  return (item.content ?? []).map((part) => part.text ?? part.refusal ?? "").join("");
}

export function isUser(item: Item): boolean {
  return item.type === "message" && item.role === "user";
}

export function imageOf(part: Part): string | null {
  if (part.type !== "input_image") return null;
  return typeof part.image_url === "string" ? part.image_url : part.image_url?.url ?? null;
}

/** The text as JSON with line breaks if it is an object or a list, as an answer to a schema is. */
export function structured(text: string): string | null {
  const begins = text.trimStart()[0];
  if (begins !== "{" && begins !== "[") return null;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return null;
  }
}

/** Calls of tools that nobody has answered yet. */
export function openCalls(items: readonly Item[]): Item[] {
  const answered = new Set(items.filter(({ type }) => type === "function_call_output").map(({ call_id }) => call_id));
  return items.filter((item) => item.type === "function_call" && !answered.has(item.call_id));
}

/** A conversation's items, with those of a turn that it does not show yet behind them. */
export function joined(items: readonly Item[], asked: readonly Item[], live: readonly Item[]): Item[] {
  const known = new Set(items.map(({ id }) => id));
  const answering = new Set(live.map(({ id }) => id));
  // What was asked has no id before it is stored. It is stored if it is the last before the answer.
  const last = items.findLast(({ id }) => !answering.has(id));
  const stored = last !== undefined && same(last, asked.at(-1));
  return [...items, ...(stored ? [] : asked), ...live.filter(({ id }) => id === undefined || !known.has(id))];
}

function same(one: Item, other: Item | undefined): boolean {
  return other !== undefined && one.type === other.type && textOf(one) === textOf(other) && one.call_id === other.call_id;
}

/** The item before `item`, and whether there is one: where a branch that replaces `item` begins. */
export function before(items: readonly Item[], item: Item): Item | undefined {
  const at = items.indexOf(item);
  return at > 0 ? items[at - 1] : undefined;
}

/** The newest question at or before the end, and everything behind it. */
export function lastExchange(items: readonly Item[]): { question: Item; from: number } | null {
  const from = items.findLastIndex(isUser);
  const question = items[from];
  return question ? { question, from } : null;
}
