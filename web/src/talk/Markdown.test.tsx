import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { Markdown, safe } from "./Markdown";

const drawn = (text: string) => renderToStaticMarkup(<Markdown text={text} />);

describe("markdown", () => {
  it("draws headings, lists, tables and code", () => {
    const html = drawn("# Title\n\n- one\n- **two**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```rust\nfn main() {}\n```");
    for (const part of ["<h3>Title</h3>", "<li>one</li>", "<strong>two</strong>", "<th>a</th>", "<td>2</td>", "fn main() {}"]) {
      expect(html).toContain(part);
    }
  });

  it("shows tags as text: nothing of an answer becomes part of the page", () => {
    const html = drawn("<script>alert(1)</script>\n\nhi <img src=x onerror=alert(1)>");
    expect(html).not.toMatch(/<script|<img/);
    expect(html).toContain("&lt;script&gt;");
  });

  it("follows no link that runs, and fetches no image", () => {
    const html = drawn("[a](javascript:alert(1)) ![b](https://example.com/spy.png)");
    expect(html).not.toContain("javascript:");
    expect(html).not.toContain("<img");
    expect(["https://a.test", "mailto:a@b.test"].every(safe)).toBe(true);
    expect(["javascript:alert(1)", "data:text/html,x", "//a.test", " javascript:x"].some(safe)).toBe(false);
  });

  it("says text with special characters as it was said", () => {
    expect(drawn('Tom & "Jerry" < 3')).toContain("Tom &amp; &quot;Jerry&quot; &lt; 3");
    expect(drawn("`a < b && c`")).toContain("<code>a &lt; b &amp;&amp; c</code>");
  });
});
