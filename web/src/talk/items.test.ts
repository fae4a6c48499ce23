import { describe, expect, it } from "vitest";
import type { Item } from "../api/types";
import { before, joined, lastExchange, openCalls, structured } from "./items";

const user = (id: string | undefined, text: string): Item => ({ ...(id && { id }), type: "message", role: "user", content: [{ type: "input_text", text }] });
const assistant = (id: string): Item => ({ id, type: "message", role: "assistant", content: [{ type: "output_text", text: id }] });

describe("a thread", () => {
  it("shows what was asked once, before and after it is stored", () => {
    const asked = [user(undefined, "hello")];
    expect(joined([], asked, [])).toEqual(asked);
    const stored = [user("msg_1", "hello")];
    expect(joined(stored, asked, [assistant("msg_2")])).toEqual([...stored, assistant("msg_2")]);
    expect(joined([...stored, assistant("msg_2")], asked, [assistant("msg_2")])).toHaveLength(2);
  });

  it("shows a question that was asked before in the same words", () => {
    const items = [user("msg_1", "hello"), assistant("msg_2")];
    expect(joined(items, [user(undefined, "hello")], [])).toHaveLength(3);
  });

  it("knows the last exchange and what stands before an item", () => {
    const items = [user("a", "1"), assistant("b"), user("c", "2"), assistant("d")];
    expect(lastExchange(items)).toEqual({ question: items[2], from: 2 });
    expect(before(items, items[2] as Item)).toBe(items[1]);
    expect(before(items, items[0] as Item)).toBeUndefined();
  });

  it("finds calls that wait for their result", () => {
    const call = (id: string): Item => ({ type: "function_call", call_id: id, name: "f" });
    const items = [call("1"), { type: "function_call_output", call_id: "1", output: "" }, call("2")];
    expect(openCalls(items)).toEqual([call("2")]);
  });

  it("takes only whole documents for structured answers", () => {
    expect(structured(' {"a": 1}')).toBe('{\n  "a": 1\n}');
    expect(structured('{"a": ')).toBeNull();
    expect(structured("12")).toBeNull();
  });
});
