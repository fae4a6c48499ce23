import { useSyncExternalStore } from "react";

/** Pages of the console, by the section that the heading of every page lists. */
export const SECTIONS = [
  { name: "Talk", pages: [{ page: "talk", name: "Talk", operator: false }] },
  {
    name: "Work",
    pages: [
      { page: "events", name: "Events", operator: true },
      { page: "jobs", name: "Jobs", operator: true },
      { page: "callbacks", name: "Callbacks", operator: true },
      { page: "dead-letters", name: "Dead letters", operator: true },
      { page: "turns", name: "Turns", operator: true },
      { page: "queues", name: "Queues", operator: true },
    ],
  },
  {
    name: "Health",
    pages: [
      { page: "latency", name: "Latency", operator: true },
      { page: "errors", name: "Errors", operator: true },
      { page: "providers", name: "Providers", operator: true },
      { page: "switches", name: "Switches", operator: true },
      { page: "system", name: "System", operator: true },
    ],
  },
  {
    name: "Access",
    pages: [
      { page: "keys", name: "Keys", operator: true },
      { page: "grants", name: "Grants", operator: true },
      { page: "audit", name: "Audit", operator: true },
    ],
  },
  { name: "Usage", pages: [{ page: "usage", name: "Usage", operator: false }] },
] as const;

export type Page = (typeof SECTIONS)[number]["pages"][number]["page"];

export interface Section {
  name: string;
  pages: readonly { page: Page; name: string; operator: boolean }[];
}

/** Sections and pages of somebody who is an operator, or is not. */
export function sectionsFor(operator: boolean): Section[] {
  const all: readonly Section[] = SECTIONS;
  const open = all.map(({ name, pages }) => ({ name, pages: pages.filter((page) => operator || !page.operator) }));
  return open.filter(({ pages }) => pages.length > 0);
}

/** A place in the console, in the address behind the #, so that any server of files will do. */
export interface Route {
  page: Page;
  /** What of the page is looked at: a conversation, an event. */
  id: string | null;
}

const PAGES: readonly Page[] = SECTIONS.flatMap(({ pages }) => pages.map(({ page }) => page));

export function parse(hash: string): Route {
  const [name = "", rest] = hash.replace(/^#\/?/, "").split("/");
  const page = PAGES.find((known) => known === name) ?? "talk";
  return { page, id: rest ? decoded(rest) : null };
}

/** What is no encoding stands for itself: an address is typed in by people too. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function address(page: Page, id?: string | null): string {
  return id ? `#/${page}/${encodeURIComponent(id)}` : `#/${page}`;
}

export function go(page: Page, id?: string | null): void {
  window.location.hash = address(page, id);
}

function subscribe(listener: () => void): () => void {
  window.addEventListener("hashchange", listener);
  return () => window.removeEventListener("hashchange", listener);
}

export function useRoute(): Route {
  const hash = useSyncExternalStore(subscribe, () => window.location.hash);
  return parse(hash);
}
