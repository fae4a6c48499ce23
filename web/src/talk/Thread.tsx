import { useEffect, useLayoutEffect, useRef, useState } from "react";
import type { Item, Model } from "../api/types";
import { count, money } from "../ui/format";
import { Problem } from "../ui/States";
import { ItemView } from "./ItemView";
import { type Spent, cost, spentOn } from "./cost";
import { isUser, openCalls, textOf } from "./items";
import type { Live } from "./live";
import { isRunning } from "./turn";

/** So near to the end somebody is still reading along. */
const NEAR = 80;

export function Thread({
  items,
  loading,
  error,
  onRetry,
  live,
  onFollow,
  busy,
  models,
  more,
  onEarlier,
  onRegenerate,
  onBranch,
  onEdit,
  onResult,
}: {
  items: Item[];
  loading: boolean;
  error: { message: string; code: string | null } | null;
  onRetry: () => void;
  live: Live | undefined;
  /** Follows the turn that runs in another tab; `null`: none does. */
  onFollow: (() => void) | null;
  /** Something that a button began is not done yet. */
  busy: boolean;
  models: Model[];
  more: boolean;
  onEarlier: () => void;
  onRegenerate: () => void;
  onBranch: (item: Item) => void;
  onEdit: (item: Item) => void;
  onResult: (call: string | undefined, output: string) => void;
}) {
  const pane = useRef<HTMLDivElement>(null);
  const along = useRef(true);
  const top = useRef(0);
  const running = live !== undefined && !live.over;
  const mine = new Set(running ? live.turn.items.map(({ id }) => id) : []);
  const lastQuestion = items.findLastIndex(isUser);
  const waiting = running ? [] : openCalls(items);

  // The end stays in sight while an answer grows, unless somebody scrolled up to read.
  useLayoutEffect(() => {
    const element = pane.current;
    if (element && along.current) element.scrollTop = element.scrollHeight;
  });

  return (
    <div
      className="thread"
      ref={pane}
      tabIndex={0}
      role="region"
      aria-label="Conversation"
      onScroll={(event) => {
        const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
        // Only who goes up leaves the end; that it went further down by itself is no reason to stay behind.
        if (scrollHeight - scrollTop - clientHeight < NEAR) along.current = true;
        else if (scrollTop < top.current) along.current = false;
        top.current = scrollTop;
      }}
    >
      <div className="column">
        {error && <Problem error={error} again={onRetry} />}
        {loading && (
          <div className="skeleton" role="status">
            Loading…
          </div>
        )}
        {!loading && !error && items.length === 0 && !running && (
          <div className="empty">
            <h2>What is on your mind?</h2>
            <p>Say something below. Ctrl K finds every page by its name.</p>
          </div>
        )}
        {more && (
          <button type="button" className="quiet" onClick={onEarlier}>
            Earlier
          </button>
        )}
        {items.map((item, at) => (
          <article key={item.id ?? `new-${at}`}>
            <ItemView item={item} running={mine.has(item.id)} />
            {!running && item.id && (
              <div className="actions quiet-actions">
                {isUser(item) && (
                  <button type="button" className="quiet" disabled={busy} onClick={() => onEdit(item)}>
                    Edit in a branch
                  </button>
                )}
                <button type="button" className="quiet" disabled={busy} onClick={() => onBranch(item)}>
                  Branch here
                </button>
                {at === items.length - 1 && lastQuestion >= 0 && (
                  <button type="button" className="quiet" disabled={busy} onClick={onRegenerate}>
                    {isUser(item) ? "Answer" : "Regenerate"}
                  </button>
                )}
                <Usage spent={spentOn(item.id)} models={models} />
              </div>
            )}
          </article>
        ))}
        {waiting.map((call) => (
          <Result key={call.call_id} call={call} onResult={onResult} />
        ))}
        {live && <State live={live} />}
        {onFollow && (
          <p className="note elsewhere" role="status">
            This conversation is being answered in another tab.{" "}
            <button type="button" onClick={onFollow}>
              Follow it here
            </button>
          </p>
        )}
        <Announcer live={live} />
      </div>
    </div>
  );
}

function Usage({ spent, models }: { spent: Spent | undefined; models: Model[] }) {
  if (!spent) return null;
  const price = models.find(({ id }) => id === spent.model)?.price;
  const { input_tokens, output_tokens } = spent.tokens;
  return (
    <span className="note usage">
      {spent.model} · {count(input_tokens)} + {count(output_tokens)} tokens
      {price && <> · at most {money(cost(spent.tokens, price))}</>}
    </span>
  );
}

/** How the turn and its connection stand. Always as high, so that nothing moves when it changes. */
function State({ live }: { live: Live }) {
  const { link, turn, error, over, stopping } = live;
  if (error) return <Problem error={error} />;
  if (over) {
    const said = turn.status === "cancelled" ? "Stopped." : turn.problem;
    return said ? (
      <p className={turn.status === "failed" ? "problem" : "note"} role="status">
        {said}
      </p>
    ) : null;
  }
  if (link.state === "healing") {
    return (
      <p className="healing" role="status" data-link="healing">
        The connection broke. Getting it back, the answer goes on where it was… (try {link.attempt})
      </p>
    );
  }
  return (
    <p className="note pulse" data-link={link.state}>
      {stopping ? "Stopping…" : turn.status === "queued" ? "Waiting…" : "Answering…"}
    </p>
  );
}

/** Tells screen readers whole sentences now and then; every token would be a flood. */
function Announcer({ live }: { live: Live | undefined }) {
  const [said, setSaid] = useState("");
  const told = useRef(0);
  const turn = live?.turn;
  const text = (turn?.items ?? []).filter(({ type }) => type === "message").map(textOf).join("\n");
  useEffect(() => {
    if (!turn) return;
    if (text.length < told.current) told.current = 0;
    const news = text.slice(told.current);
    const end = isRunning(turn) ? sentenceEnd(news) : news.length;
    if (end === 0) return;
    setSaid(news.slice(0, end));
    told.current += end;
  }, [turn, text]);
  return (
    <div className="hidden" aria-live="polite" aria-atomic="true">
      {said}
    </div>
  );
}

function sentenceEnd(text: string): number {
  return Math.max(text.lastIndexOf(". "), text.lastIndexOf("\n"), text.lastIndexOf("? "), text.lastIndexOf("! ")) + 1;
}

/** A call that waits for what the tool gives: the caller runs tools, so here it is the person. */
function Result({ call, onResult }: { call: Item; onResult: (call: string | undefined, output: string) => void }) {
  const [output, setOutput] = useState("");
  return (
    <form
      className="result"
      onSubmit={(event) => {
        event.preventDefault();
        onResult(call.call_id, output);
      }}
    >
      <label>
        What does <code>{call.name}</code> give?
        <textarea rows={2} required value={output} onChange={(event) => setOutput(event.target.value)} />
      </label>
      <button type="submit" className="primary">
        Give the result
      </button>
    </form>
  );
}
