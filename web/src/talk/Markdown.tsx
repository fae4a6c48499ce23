import type { Token, Tokens } from "marked";
import { Fragment, type ReactNode, memo, useEffect, useRef } from "react";
import { Code } from "./Code";
import { type Blocks, blocksOf } from "./blocks";

/**
 * Markdown as elements. No HTML of the text is ever taken over: a tag in it is shown as text, so nothing a model says
 * can become part of the page. Blocks that did not change are not drawn again while an answer grows.
 */
export const Markdown = memo(function Markdown({ text, grows = false }: { text: string; grows?: boolean }) {
  const was = useRef<Blocks | null>(null);
  // Only a shortcut: whatever stood there before, the same blocks come of it.
  was.current = blocksOf(text, grows, was.current);
  // So many parts stood through a whole frame as they are: only of those does the browser know the height.
  const drawn = useRef(0);
  const { tokens } = was.current;
  // Blocks only ever grow at the end, so their place is their name.
  const parts = Array.from({ length: Math.ceil(tokens.length / PART) }, (_, at) => tokens.slice(at * PART, (at + 1) * PART));
  useEffect(() => {
    const settled = parts.length - LAST;
    if (grows && settled > drawn.current) afterFrame(() => (drawn.current = Math.max(drawn.current, settled)));
  });
  return (
    <div className="markdown">
      {parts.map((tokens, at) => (
        <Part key={at} tokens={tokens} past={at < drawn.current} />
      ))}
    </div>
  );
});

/** Blocks that are drawn, and passed over, together. */
const PART = 8;
/** So many parts at the end are never passed over: they may still change, or be in sight of who follows. */
const LAST = 24;

/** The first callback may come in the frame that draws what was just changed, the second comes behind that. */
function afterFrame(then: () => void): void {
  requestAnimationFrame(() => requestAnimationFrame(then));
}

/** `past`: it came while somebody looked on, and no longer changes. Out of sight it costs nothing, and keeps its height. */
const Part = memo(
  function Part({ tokens, past }: { tokens: readonly Token[]; past: boolean }) {
    return (
      <div className={past ? "part past" : "part"}>
        {tokens.map((token, at) => (
          <Block key={at} token={token} />
        ))}
      </div>
    );
  },
  (was, is) => was.past === is.past && was.tokens.length === is.tokens.length && was.tokens.every((token, at) => token === is.tokens[at]),
);

/** What stands elsewhere in the text may say where a block with such a part leads. */
const LINKED = /\]/;

const Block = memo(
  function Block({ token }: { token: Token }) {
    return block(token);
  },
  ({ token: was }, { token: is }) => was === is || (was.raw === is.raw && was.type === is.type && !LINKED.test(is.raw)),
);

function blocks(tokens: Token[] | undefined): ReactNode {
  return tokens?.map((token, at) => <Fragment key={at}>{block(token)}</Fragment>);
}

function block(token: Token): ReactNode {
  switch (token.type) {
    case "heading": {
      const { depth, tokens } = token as Tokens.Heading;
      // Below the page's own headings, so that the outline stays one.
      const Heading = `h${Math.min(6, depth + 2)}` as "h3";
      return <Heading>{inlines(tokens)}</Heading>;
    }
    case "paragraph":
      return <p>{inlines((token as Tokens.Paragraph).tokens)}</p>;
    case "code": {
      const { text, lang } = token as Tokens.Code;
      return <Code text={text} language={lang} />;
    }
    case "blockquote":
      return <blockquote>{blocks((token as Tokens.Blockquote).tokens)}</blockquote>;
    case "list": {
      const { ordered, start, items } = token as Tokens.List;
      const entries = items.map((item, at) => (
        <li key={at}>
          {item.task && <input type="checkbox" checked={item.checked ?? false} readOnly aria-label="done" />}
          {blocks(item.tokens)}
        </li>
      ));
      return ordered ? <ol start={start === "" ? 1 : start}>{entries}</ol> : <ul>{entries}</ul>;
    }
    case "table":
      return <Table table={token as Tokens.Table} />;
    case "hr":
      return <hr />;
    case "space":
    case "def":
      return null;
    case "text": {
      const { tokens, text } = token as Tokens.Text;
      return tokens ? inlines(tokens) : text;
    }
    case "html":
      return <p>{token.raw}</p>;
    default:
      return token.raw;
  }
}

function Table({ table }: { table: Tokens.Table }) {
  return (
    <div className="scroll" role="region" aria-label="Table" tabIndex={0}>
      <table>
        <thead>
          <tr>
            {table.header.map((cell, at) => (
              <th key={at}>{inlines(cell.tokens)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, at) => (
            <tr key={at}>
              {row.map((cell, at) => (
                <td key={at}>{inlines(cell.tokens)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inlines(tokens: Token[] | undefined): ReactNode {
  return tokens?.map((token, at) => <Fragment key={at}>{inline(token)}</Fragment>);
}

function inline(token: Token): ReactNode {
  switch (token.type) {
    case "strong":
      return <strong>{inlines((token as Tokens.Strong).tokens)}</strong>;
    case "em":
      return <em>{inlines((token as Tokens.Em).tokens)}</em>;
    case "del":
      return <del>{inlines((token as Tokens.Del).tokens)}</del>;
    case "codespan":
      return <code>{(token as Tokens.Codespan).text}</code>;
    case "br":
      return <br />;
    case "link": {
      const { href, tokens } = token as Tokens.Link;
      return safe(href) ? (
        <a href={href} target="_blank" rel="noopener noreferrer nofollow">
          {inlines(tokens)}
        </a>
      ) : (
        inlines(tokens)
      );
    }
    case "image": {
      // Never fetched: an address in an answer would tell a third party who reads it.
      const { href, text } = token as Tokens.Image;
      return safe(href) ? (
        <a href={href} target="_blank" rel="noopener noreferrer nofollow">
          {text || href}
        </a>
      ) : (
        text
      );
    }
    case "text":
    case "escape": {
      const { tokens, text } = token as Tokens.Text;
      return tokens ? inlines(tokens) : text;
    }
    default:
      return token.raw;
  }
}

/** Whether a link may be followed: the web and mail, nothing that runs. */
export function safe(href: string): boolean {
  return /^(https?:|mailto:)/i.test(href);
}
