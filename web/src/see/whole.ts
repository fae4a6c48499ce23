import type { Usage } from "../api/types";

type Query = Record<string, string>;

/** Usage with all that does not fit one answer: the sum of a part would pass for the whole. */
export async function whole(ask: (query: Query) => Promise<Usage>, query: Query): Promise<Usage> {
  const first = await ask(query);
  const data = [...first.data];
  for (let page = first; page.has_more && page.last_id !== null; ) {
    page = await ask({ ...query, after: page.last_id });
    data.push(...page.data);
  }
  return { ...first, data };
}
