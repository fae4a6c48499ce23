import { Lexer, type Token, type TokensList, lexer } from "marked";

/** A text's blocks, and what is needed to go on from there. */
export interface Blocks {
  text: string;
  tokens: readonly Token[];
  links: TokensList["links"];
}

/** What comes next may still change the last blocks: a list goes on behind an empty line. */
const OPEN = 2;

/**
 * The blocks of a text. While it `grows`, those of what it was are taken over up to the last few, so that the work of a
 * step is that of its end and not of the whole. What only the whole can tell, such as a link that is explained further
 * down, stands right once it no longer grows.
 */
export function blocksOf(text: string, grows: boolean, was: Blocks | null): Blocks {
  if (!grows || !was || text.includes("\r") || !text.startsWith(was.text)) {
    const tokens = lexer(text);
    return { text, tokens, links: tokens.links };
  }
  const kept = was.tokens.slice(0, settled(was.tokens));
  const from = kept.reduce((sum, { raw }) => sum + raw.length, 0);
  const end = new Lexer();
  Object.assign(end.tokens.links, was.links);
  const tokens = end.lex(text.slice(from));
  return { text, tokens: [...kept, ...tokens], links: tokens.links };
}

/** How many tokens at the beginning will stay as they are. */
function settled(tokens: readonly Token[]): number {
  let open = 0;
  let at = tokens.length;
  while (at > 0 && open < OPEN) {
    at -= 1;
    if (tokens[at]?.type !== "space") open += 1;
  }
  return open < OPEN ? 0 : at;
}
