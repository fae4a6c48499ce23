import { Suspense, lazy, useEffect, useState } from "react";
import { told } from "./api/errors";
import { type Signed, SignedIn } from "./api/session";
import { address, go, sectionsFor, useRoute } from "./routes";
import { SignIn } from "./signin/SignIn";
import { useSession } from "./signin/useSession";
import { Talk } from "./talk/Talk";
import { liveTurns } from "./talk/live";
import { Boundary } from "./ui/Boundary";
import { type Command, Palette } from "./ui/Palette";
import { Problem } from "./ui/States";
import { useTheme } from "./ui/theme";

// What mostly operators see is loaded beside the rest: when they look at it, the server may be away.
const loadSee = () => import("./see/See");
const See = lazy(loadSee);

export function App() {
  const session = useSession();
  switch (session.state) {
    case "in":
      return (
        <SignedIn.Provider value={session.signed}>
          <Shell signed={session.signed} ended={session.ended} />
        </SignedIn.Provider>
      );
    case "out":
      return <SignIn problem={session.problem} onKey={session.onKey} />;
    case "entering":
      return (
        <main className="sign-in">
          {session.error ? (
            <>
              <Problem error={session.error} again={session.retry} />
              {session.signIn && (
                <button type="button" className="primary" onClick={session.signIn}>
                  Sign in again
                </button>
              )}
              <button type="button" onClick={session.leave}>
                Sign in as somebody else
              </button>
            </>
          ) : (
            <div className="skeleton" role="status">
              Loading…
            </div>
          )}
        </main>
      );
  }
}

function Shell({ signed, ended }: { signed: Signed; ended: boolean }) {
  const route = useRoute();
  const [theme, nextTheme] = useTheme();
  const [palette, setPalette] = useState(false);
  const live = liveTurns(signed.api);
  const sections = sectionsFor(signed.operator);
  const pages = sections.flatMap(({ pages }) => pages);
  const page = pages.some((known) => known.page === route.page) ? route.page : "talk";
  const section = sections.find(({ pages }) => pages.some((known) => known.page === page));

  const title = pages.find((known) => known.page === page)?.name;
  useEffect(() => {
    document.title = title ? `${title} · Colloquy` : "Colloquy";
  }, [title]);

  useEffect(() => {
    // What comes of it is told where the page is shown.
    loadSee().catch(() => undefined);
  }, []);

  const commands: Command[] = [
    { name: "New conversation", hint: "Alt N", run: () => go("talk") },
    ...sections.flatMap(({ pages }, section) =>
      pages.map(({ page, name }, at) => ({ name: `Go to ${name}`, ...(at === 0 && { hint: `Alt ${section + 1}` }), run: () => go(page) })),
    ),
    { name: `Theme: ${theme}; change it`, run: nextTheme },
    { name: "Sign out", run: signed.signOut },
  ];

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        setPalette((open) => !open);
      } else if (event.altKey && !event.ctrlKey && event.code === "KeyN") {
        event.preventDefault();
        go("talk");
      } else if (event.altKey && !event.ctrlKey && /^Digit[1-9]$/.test(event.code)) {
        const wanted = sections[Number(event.code.slice(5)) - 1]?.pages[0];
        if (wanted) {
          event.preventDefault();
          go(wanted.page);
        }
      } else if (event.key === "Escape" && route.page === "talk" && route.id && !document.querySelector("dialog[open]")) {
        void live.stop(route.id);
      } else if (event.key === "/" && !isTyping(event.target)) {
        const field = document.querySelector<HTMLElement>(".composer textarea, input[type=search]");
        if (field) {
          event.preventDefault();
          field.focus();
        }
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  });

  return (
    <div className="shell">
      <a
        className="skip"
        href="#content"
        onClick={(event) => {
          // The address behind the # is the place in the console, so the focus is moved by hand.
          event.preventDefault();
          document.getElementById("content")?.focus();
        }}
      >
        To the content
      </a>
      <header>
        <h1>
          <a href={address("talk")}>Colloquy</a>
        </h1>
        <nav aria-label="Sections">
          {sections.map(({ name, pages: [first] }) => (
            <a key={name} href={address(first?.page ?? "talk")} aria-current={name === section?.name ? "page" : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <button type="button" className="quiet" onClick={() => setPalette(true)} aria-label="Commands" title="Ctrl K">
          ⌘
        </button>
        <button type="button" className="quiet" onClick={nextTheme} aria-label={`Theme: ${theme}`} title={`Theme: ${theme}`}>
          ◐
        </button>
        <button type="button" className="quiet" onClick={signed.signOut}>
          Sign out
        </button>
      </header>
      {ended && signed.again && <Ended again={signed.again} />}
      <main id="content" tabIndex={-1}>
        {page === "talk" ? (
          <Talk conversation={route.page === "talk" ? route.id : null} live={live} />
        ) : (
          <>
            {section && section.pages.length > 1 && (
              <nav className="pages" aria-label={section.name}>
                {section.pages.map(({ page: name, name: title }) => (
                  <a key={name} href={address(name)} aria-current={name === page ? "page" : undefined}>
                    {title}
                  </a>
                ))}
              </nav>
            )}
            <Boundary key={page}>
              <Suspense fallback={<div className="skeleton" role="status">Loading…</div>}>
                <See route={{ ...route, page }} />
              </Suspense>
            </Boundary>
          </>
        )}
      </main>
      {palette && <Palette commands={commands} onClose={() => setPalette(false)} />}
    </div>
  );
}

/** What is shown stays, and what is typed; to go on somebody signs in anew, and comes back to the same place. */
function Ended({ again }: { again: () => Promise<void> }) {
  const [error, setError] = useState<ReturnType<typeof told> | null>(null);
  return (
    <div className="ended" role="alert">
      <span>{error ? error.message : "Your sign-in has ended. What is here stays; sign in again to go on."}</span>
      <button type="button" className="primary" onClick={() => void again().catch((problem: unknown) => setError(told(problem)))}>
        Sign in again
      </button>
    </div>
  );
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");
}
