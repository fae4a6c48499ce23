import { describe, expect, it } from "vitest";
import type { Item, StreamEvent } from "../api/types";
import { textOf } from "./items";
import { NEW_TURN, isLast, isRunning, reduce } from "./turn";

const message: Item = { id: "msg_1", type: "message", role: "assistant", content: [] };
const event = (type: string, rest: Partial<StreamEvent> = {}): StreamEvent => ({ type, sequence_number: 0, output_index: 0, content_index: 0, ...rest });
const after = (...events: StreamEvent[]) => events.reduce(reduce, NEW_TURN);
const text = (turn: ReturnType<typeof after>, at = 0) => textOf(turn.items[at] ?? message);

const begun = [
  event("response.output_item.added", { item: message }),
  event("response.content_part.added", { part: { type: "output_text", text: "" } }),
];

describe("a turn", () => {
  it("grows by deltas and trusts what is done", () => {
    const grown = after(...begun, event("response.output_text.delta", { delta: "Hel" }), event("response.output_text.delta", { delta: "lo" }));
    expect(text(grown)).toBe("Hello");
    expect(text(reduce(grown, event("response.output_text.done", { text: "Hello." })))).toBe("Hello.");
  });

  it("never changes what it was", () => {
    const was = after(...begun);
    reduce(was, event("response.output_text.delta", { delta: "more" }));
    expect(text(was)).toBe("");
  });

  it("loses what is taken back", () => {
    const shown = after(...begun, event("response.output_text.delta", { delta: "good bad" }));
    expect(text(reduce(shown, event("colloquy:output_text_retracted", { text: "good " })))).toBe("good ");
  });

  it("collects arguments, reasoning under both its names, and refusals", () => {
    const call: Item = { id: "fc_1", type: "function_call", name: "f", arguments: "" };
    const turn = after(
      event("response.output_item.added", { item: { id: "rs_1", type: "reasoning" } }),
      event("response.reasoning_text.delta", { delta: "let " }),
      event("response.reasoning.delta", { delta: "me see" }),
      event("response.reasoning_summary_text.delta", { delta: "saw", summary_index: 0 }),
      event("response.output_item.added", { item: call, output_index: 1 }),
      event("response.function_call_arguments.delta", { delta: '{"a":', output_index: 1 }),
      event("response.function_call_arguments.delta", { delta: "1}", output_index: 1 }),
      event("response.output_item.added", { item: message, output_index: 2 }),
      event("response.refusal.delta", { delta: "No.", output_index: 2 }),
    );
    expect(text(turn, 0)).toBe("let me see");
    expect(turn.items[0]?.summary?.[0]?.text).toBe("saw");
    expect(turn.items[1]?.arguments).toBe('{"a":1}');
    expect(turn.items[2]?.content).toEqual([{ type: "refusal", refusal: "No." }]);
  });

  it("ends with what the server says it was", () => {
    const usage = { input_tokens: 1, output_tokens: 2, total_tokens: 3 };
    const response = { id: "resp_1", status: "incomplete", model: "demo", output: [message], usage, error: null, incomplete_details: { reason: "max_output_tokens" } } as const;
    const turn = after(...begun, event("response.incomplete", { response: { ...response, output: [message] } }));
    expect(turn).toMatchObject({ id: "resp_1", status: "incomplete", usage, problem: "The answer reached its greatest length." });
    expect(isRunning(turn)).toBe(false);
  });

  it("fails on an error, with its words", () => {
    expect(after(event("error", { error: { code: "x", message: "Why." } }))).toMatchObject({ status: "failed", problem: "Why." });
  });

  it("ignores what it does not know", () => {
    const was = after(...begun);
    expect(reduce(was, event("colloquy:something_new"))).toBe(was);
  });

  it("knows its last events", () => {
    expect(["completed", "incomplete", "failed", "cancelled"].every((end) => isLast(event(`response.${end}`)))).toBe(true);
    expect(isLast(event("response.output_text.done"))).toBe(false);
  });
});
