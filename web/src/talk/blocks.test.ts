import { lexer } from "marked";
import { describe, expect, it } from "vitest";
import { type Blocks, blocksOf } from "./blocks";

const TEXT = `# A heading

Words and *more* words,
over two lines.

- one
- two

  with a second paragraph

- three

1. a

2. b

3. c

\`\`\`rust
fn main() {

    println!("- no list");
}
\`\`\`

| a | b |
|---|---|
| 1 | 2 |

> said
> before

See [the end][1], or <b>this</b>.

    indented

    code

A setext heading
---

* * *

Last words.

[1]: https://example.com
`;

/** As it comes: step by step, at many places. */
function grown(text: string, step: number): Blocks {
  let blocks: Blocks | null = null;
  for (let end = step; end < text.length; end += step) blocks = blocksOf(text.slice(0, end), true, blocks);
  return blocksOf(text, true, blocks);
}

describe("blocks of a text that grows", () => {
  it.each([1, 2, 3, 7, 20, 64])("are those of the whole, %i characters at a time", (step) => {
    const whole = lexer(TEXT);
    const { tokens } = grown(TEXT, step);
    expect(tokens.map(({ type, raw }) => [type, raw])).toEqual(whole.map(({ type, raw }) => [type, raw]));
  });

  it("are whole once it ends, also where the end explains what came before", () => {
    const { tokens } = blocksOf(TEXT, false, grown(TEXT, 5));
    expect([...tokens]).toEqual([...lexer(TEXT)]);
  });

  it("keeps those that are done, and reads another text anew", () => {
    const first = blocksOf("# one\n\ntwo\n\nthree\n\nfo", true, null);
    const next = blocksOf("# one\n\ntwo\n\nthree\n\nfour", true, first);
    expect(next.tokens[0]).toBe(first.tokens[0]);
    expect(next.tokens.at(-1)?.raw).toBe("four");
    expect(blocksOf("else", true, next).tokens.map(({ raw }) => raw)).toEqual(["else"]);
    expect([...blocksOf("# one\r\n\r\ntwo", true, first).tokens]).toEqual([...lexer("# one\r\n\r\ntwo")]);
  });
});
