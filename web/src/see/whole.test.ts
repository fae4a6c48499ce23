import { expect, it } from "vitest";
import type { Usage, UsageDay } from "../api/types";
import { whole } from "./whole";

const page = (days: string[], last_id: string | null): Usage => ({
  from: "2026-01-01", to: "2026-01-31", data: days.map((day) => ({ day }) as UsageDay), last_id, has_more: last_id !== null, budgets: [],
});

it("usage is asked for until there is no more, each time behind the last row", async () => {
  const asked: unknown[] = [];
  const pages = [page(["2026-01-03", "2026-01-02"], "b"), page(["2026-01-02"], "c"), page(["2026-01-01"], null)];
  const all = await whole(async (query) => {
    asked.push(query);
    return pages[asked.length - 1] ?? page([], null);
  }, { from: "2026-01-01" });
  expect(all.data.map(({ day }) => day)).toEqual(["2026-01-03", "2026-01-02", "2026-01-02", "2026-01-01"]);
  expect(asked).toEqual([{ from: "2026-01-01" }, { from: "2026-01-01", after: "b" }, { from: "2026-01-01", after: "c" }]);
});
