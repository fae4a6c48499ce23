import { useSyncExternalStore } from "react";

/** Places of the console, in the address behind the #, so that any server of files will do. */
export type Route =
  | { page: "talk"; conversation: string | null }
  | { page: "events"; event: string | null }
  | { page: "jobs" }
  | { page: "callbacks" }
  | { page: "dead-letters" }
  | { page: "turns" }
  | { page: "switches" }
  | { page: "usage" };

export type Page = Route["page"];

const PAGES: readonly Page[] = ["talk", "events", "jobs", "callbacks", "dead-letters", "turns", "switches", "usage"];

export function parse(hash: string): Route {
  const [name = "", rest] = hash.replace(/^#\/?/, "").split("/");
  const page = PAGES.find((known) => known === name) ?? "talk";
  const id = rest ? decodeURIComponent(rest) : null;
  if (page === "talk") return { page, conversation: id };
  if (page === "events") return { page, event: id };
  return { page };
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
