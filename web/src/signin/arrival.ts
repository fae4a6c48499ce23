import { storedTokens } from "./tokens";

let arrival: Promise<void> | null = null;

/** Whether the address is one that an issuer sends people back to. */
function comesBack(query: URLSearchParams): boolean {
  return query.has("state") && (query.has("code") || query.has("error"));
}

/**
 * Ends a sign-in if somebody comes back from one; then their tokens are stored. `null`: nobody does. However often it
 * is asked, a code is used once.
 */
export function arrive(): Promise<void> | null {
  const query = new URLSearchParams(window.location.search);
  if (comesBack(query)) {
    // Neither history nor a reload must see the code again.
    window.history.replaceState(null, "", window.location.pathname + window.location.hash);
    arrival = import("./oidc")
      .then(({ end }) => end(query))
      .then(({ by, back }) => {
        storedTokens.write(by);
        if (back) window.history.replaceState(null, "", window.location.pathname + back);
      });
  }
  return arrival;
}
