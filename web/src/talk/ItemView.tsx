import { memo, useState } from "react";
import type { Item, Part } from "../api/types";
import { pretty } from "../ui/format";
import { Code } from "./Code";
import { Markdown } from "./Markdown";
import { imageOf, structured, textOf } from "./items";

/** One item: what was said, thought, called or answered. */
export const ItemView = memo(function ItemView({ item, running }: { item: Item; running: boolean }) {
  switch (item.type) {
    case "message":
      return item.role === "user" ? <Question item={item} /> : <Answer item={item} running={running} />;
    case "reasoning":
      return <Reasoning item={item} running={running} />;
    case "function_call":
      return (
        <section className="tool" aria-label={`Tool call ${item.name}`}>
          <h3>
            Calls <code>{item.name}</code>
          </h3>
          <Code text={pretty(item.arguments ?? "")} language="arguments" />
        </section>
      );
    case "function_call_output":
      return (
        <section className="tool" aria-label="Result of a tool">
          <h3>The tool’s result</h3>
          <Code text={typeof item.output === "string" ? pretty(item.output) : partsText(item.output)} language="result" />
        </section>
      );
    default:
      return (
        <details className="tool">
          <summary>{item.type}</summary>
          <Code text={JSON.stringify(item, null, 2)} language="json" />
        </details>
      );
  }
});

function partsText(parts: Part[] | undefined): string {
  return (parts ?? []).map((part) => part.text ?? "").join("\n");
}

function Question({ item }: { item: Item }) {
  const parts = Array.isArray(item.content) ? item.content : [];
  const images = parts.map(imageOf).filter((url) => url !== null);
  return (
    <section className="question" aria-label="You said">
      {images.map((url, at) =>
        // Only what stands in the item itself; an address elsewhere is not visited.
        url.startsWith("data:image/") ? (
          <img key={at} src={url} alt="Attached" />
        ) : (
          <p key={at} className="note">
            Image at {url}
          </p>
        ),
      )}
      <p className="said">{textOf(item)}</p>
    </section>
  );
}

function Answer({ item, running }: { item: Item; running: boolean }) {
  const parts: Part[] = Array.isArray(item.content) ? item.content : [{ type: "output_text", text: item.content ?? "" }];
  return (
    <section className="answer" aria-label="Answer">
      {parts.map((part, at) =>
        part.type === "refusal" ? (
          <p key={at} className="refusal">
            <strong>Refused.</strong> {part.refusal}
          </p>
        ) : (
          <Text key={at} text={part.text ?? ""} running={running} />
        ),
      )}
      {item.status === "incomplete" && !running && <p className="note">The answer is incomplete.</p>}
    </section>
  );
}

/** Judged only once it is whole: a half of a document is no JSON. */
function Text({ text, running }: { text: string; running: boolean }) {
  const json = running ? null : structured(text);
  return json === null ? <Markdown text={text} grows={running} /> : <Code text={json} language="structured output" />;
}

function Reasoning({ item, running }: { item: Item; running: boolean }) {
  const [open, setOpen] = useState(false);
  const summary = (item.summary ?? []).map((part) => part.text ?? "").join("\n\n");
  const text = summary || textOf(item);
  if (!text) return running ? <p className="note">Thinking…</p> : null;
  return (
    <details className="reasoning" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{running ? "Thinking…" : "What it thought"}</summary>
      <Markdown text={text} grows={running} />
    </details>
  );
}
