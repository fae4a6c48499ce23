import { Fragment, type ReactNode, useEffect, useState } from "react";
import type { Piece } from "./colours";

/** Longer code, in characters, stays without colours: they would cost more than a frame. */
const COLOURED_MAX = 30_000;
/** Code that still grows is coloured when it rests for so long, in ms. */
const REST = 150;

/** What titles of our own say of it. */
const LANGUAGES: Record<string, string> = { arguments: "json", "structured output": "json", result: "json" };

export function Code({ text, language }: { text: string; language?: string | undefined }) {
  const [copied, setCopied] = useState(false);
  const pieces = useColours(text, language);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return (
    <figure className="code">
      <figcaption>
        <span>{language || "text"}</span>
        <button type="button" className="quiet" onClick={() => void copy()}>
          {copied ? "Copied" : "Copy"}
        </button>
      </figcaption>
      <pre tabIndex={0}>
        <code>{pieces ? drawn(pieces) : text}</code>
      </pre>
    </figure>
  );
}

/** The colours come after the text, which is there at once; where they are not to be had, it stays as it is. */
function useColours(text: string, language: string | undefined): Piece[] | null {
  const [found, setFound] = useState<{ text: string; pieces: Piece[] | null } | null>(null);
  const name = language ? LANGUAGES[language] ?? language.toLowerCase().split(/\s/)[0] : undefined;
  useEffect(() => {
    if (!name || text.length > COLOURED_MAX) return;
    let wanted = true;
    const timer = setTimeout(() => {
      import("./colours").then(
        ({ coloured }) => wanted && setFound({ text, pieces: coloured(text, name) }),
        () => undefined,
      );
    }, REST);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [text, name]);
  return found?.text === text ? found.pieces : null;
}

function drawn(pieces: readonly Piece[]): ReactNode {
  return pieces.map((piece, at) =>
    typeof piece === "string" ? <Fragment key={at}>{piece}</Fragment> : <span key={at} className={`hl-${piece.kind}`}>{drawn(piece.pieces)}</span>,
  );
}
