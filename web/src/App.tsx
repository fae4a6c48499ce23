import { Suspense, lazy, useCallback, useEffect, useMemo, useState } from "react";
import { SignIn, examine } from "./SignIn";
import { told } from "./api/errors";
import { type Signed, SignedIn, storedKey } from "./api/session";
import { address, go, sectionsFor, useRoute } from "./routes";
import { Talk } from "./talk/Talk";
import { liveTurns } from "./talk/live";
import { type Command, Palette } from "./ui/Palette";
import { Problem } from "./ui/States";
import { useTheme } from "./ui/theme";

// What only operators see is loaded when they look.
const See = lazy(() => import("./see/See"));

export function App() {
  const [signed, setSigned] = useState<Omit<Signed, "signOut"> | null>(null);
  const [error, setError] = useState<ReturnType<typeof told> | null>(null);
  const [known, setKnown] = useState(() => storedKey.read());

  const enter = useCallback(() => {
    if (!known || signed) return;
    setError(null);
    examine(known).then(setSigned, (problem: unknown) => setError(told(problem)));
  }, [known, signed]);
  useEffect(enter, [enter]);

  const signOut = useCallback(() => {
    if (signed) liveTurns(signed.api).close();
    storedKey.forget();
    setKnown(null);
    setSigned(null);
    setError(null);
  }, [signed]);
  const value = useMemo(() => signed && { ...signed, signOut }, [signed, signOut]);

  if (value) {
    return (
      <SignedIn.Provider value={value}>
        <Shell signed={value} />
      </SignedIn.Provider>
    );
  }
  if (known) {
    return (
      <main className="sign-in">
        {error ? (
          <>
            <Problem error={error} again={enter} />
            <button type="button" onClick={signOut}>
              Use another key
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
  return (
    <SignIn
      onSigned={(key, signed) => {
        storedKey.write(key);
        setSigned(signed);
        setKnown(key);
      }}
    />
  );
}

function Shell({ signed }: { signed: Signed }) {
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
            <Suspense fallback={<div className="skeleton" role="status">Loading…</div>}>
              <See route={{ ...route, page }} />
            </Suspense>
          </>
        )}
      </main>
      {palette && <Palette commands={commands} onClose={() => setPalette(false)} />}
    </div>
  );
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");
}
