import type { Element, Root, Text } from "hast";
import { common, createLowlight } from "lowlight";

/** A piece of code: text in a colour, or pieces within a piece. */
export type Piece = string | { kind: string; pieces: Piece[] };

const LOWLIGHT = createLowlight(common);

/** Code in pieces by what they are; `null` of a language that is not known. Loaded when the first code is shown. */
export function coloured(text: string, language: string): Piece[] | null {
  return LOWLIGHT.registered(language) ? pieces(LOWLIGHT.highlight(language, text)) : null;
}

function pieces({ children }: Root | Element): Piece[] {
  return children.flatMap((child): Piece[] => {
    if (child.type === "text") return [(child as Text).value];
    if (child.type !== "element") return [];
    const names = child.properties["className"];
    // Such as `hljs-title` and `function_`: the first says what it is.
    const kind = Array.isArray(names) ? String(names[0]).replace("hljs-", "") : "";
    return [{ kind, pieces: pieces(child) }];
  });
}
