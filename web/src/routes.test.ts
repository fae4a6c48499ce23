import { describe, expect, it } from "vitest";
import { address, parse, sectionsFor } from "./routes";

describe("places", () => {
  it("stand in the address and are read back", () => {
    expect(parse(address("events", "evt_1/2"))).toEqual({ page: "events", id: "evt_1/2" });
    expect(parse("#/dead-letters")).toEqual({ page: "dead-letters", id: null });
  });

  it("are the first page where there is no such", () => {
    for (const hash of ["", "#/", "#/nowhere", "#talk/%E0%A4%A"]) expect(parse(hash).page).toBe("talk");
  });

  it("of operators are shown to operators alone", () => {
    const pages = (operator: boolean) => sectionsFor(operator).flatMap(({ pages }) => pages.map(({ page }) => page));
    expect(pages(false)).toEqual(["talk", "usage"]);
    expect(pages(true)).toEqual(expect.arrayContaining(["talk", "queues", "latency", "errors", "providers", "system", "keys", "grants", "audit", "usage"]));
  });
});
