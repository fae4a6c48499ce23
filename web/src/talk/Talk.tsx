import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { told } from "../api/errors";
import { useApi } from "../api/session";
import type { Conversation, Item, List, Model } from "../api/types";
import { go } from "../routes";
import { useLoad } from "../ui/useLoad";
import { Composer } from "./Composer";
import { Conversations } from "./Conversations";
import { SettingsPanel } from "./SettingsPanel";
import { Thread } from "./Thread";
import { remember } from "./cost";
import { before, joined, lastExchange, textOf } from "./items";
import type { Live, LiveTurns } from "./live";
import { fields, useSettings } from "./settings";

type Told = ReturnType<typeof told>;

/** Items of one page of a thread; more are asked for by a button. */
const PAGE = 100;

export function Talk({ conversation, live: turns }: { conversation: string | null; live: LiveTurns }) {
  const api = useApi();
  const live = useSyncExternalStore(turns.subscribe, () => (conversation ? turns.get(conversation) : undefined));
  const elsewhere = useSyncExternalStore(turns.subscribe, () => (conversation && !live ? turns.tabs.runs(conversation) : null));
  const models = useLoad("models", (signal) => api.get<List<Model>>("/models", {}, signal));
  const [settings, change] = useSettings();
  const [drafts, setDrafts] = useState<Record<string, string>>({});
  const [version, setVersion] = useState(0);
  const [listed, setListed] = useState(false);
  const [problem, setProblem] = useState<Told | null>(null);
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const { items, more, error, earlier, reload } = useThread(conversation, live, turns, () => setVersion((was) => was + 1));

  const draft = drafts[conversation ?? ""] ?? "";
  const write = (text: string, where = conversation) => setDrafts((was) => ({ ...was, [where ?? ""]: text }));
  const usable = models.data?.data ?? [];
  const model = usable.find(({ id }) => id === settings.model) ?? usable[0];
  const running = live !== undefined && !live.over;

  useEffect(() => {
    setProblem(null);
    setListed(false);
    field.current?.focus();
  }, [conversation]);

  useEffect(() => (conversation ? turns.tabs.watch(conversation) : undefined), [conversation, turns]);
  // What another tab asked is shown at once, and what was answered when it has ended there.
  const followed = useRef<string | null>(null);
  useEffect(() => {
    if (elsewhere !== followed.current && !live) reload().catch(() => undefined);
    followed.current = elsewhere;
  }, [elsewhere]);

  /** What a button does; what goes wrong is told above the composer. */
  const attempt = (work: () => Promise<void>) => {
    setProblem(null);
    setBusy(true);
    work()
      .catch((error: unknown) => setProblem(told(error)))
      .finally(() => setBusy(false));
  };

  const ask = (where: string, input: Item[]) => {
    if (!model) throw new Error("There is no model to ask.");
    turns.dismiss(where);
    turns.start(where, { model: model.id, input, ...fields(settings) });
  };

  const send = (input: Item[]) => {
    const text = draft;
    write("");
    attempt(async () => {
      try {
        fields(settings);
        const where = conversation ?? (await api.post<Conversation>("/conversations")).id;
        ask(where, input);
        if (where !== conversation) go("talk", where);
        setVersion((was) => was + 1);
      } catch (error) {
        write(text);
        throw error;
      }
    });
  };

  const regenerate = () =>
    attempt(async () => {
      const last = lastExchange(items ?? []);
      if (!conversation || !items || !last) return;
      for (const item of items.slice(last.from + 1).reverse()) {
        if (item.id) await api.delete(`/conversations/${conversation}/items/${item.id}`);
      }
      await reload();
      ask(conversation, []);
    });

  const branch = (item: Item) =>
    attempt(async () => {
      const made = await api.post<Conversation>(`/conversations/${conversation}/fork`, { item_id: item.id });
      setVersion((was) => was + 1);
      go("talk", made.id);
    });

  const edit = (item: Item) =>
    attempt(async () => {
      const until = before(items ?? [], item);
      const made = until
        ? await api.post<Conversation>(`/conversations/${conversation}/fork`, { item_id: until.id })
        : await api.post<Conversation>("/conversations");
      write(textOf(item), made.id);
      setVersion((was) => was + 1);
      go("talk", made.id);
    });

  const shown = useMemo(
    () => joined(items ?? [], live?.asked ?? [], live?.turn.items ?? []),
    [items, live?.asked, live?.turn.items],
  );

  return (
    <div className={listed ? "talk listed" : "talk"}>
      <Conversations current={conversation} version={version} />
      <section className="thread-pane">
        <button type="button" className="only-narrow quiet" onClick={() => setListed(!listed)} aria-expanded={listed}>
          ☰ Conversations
        </button>
        <Thread
          key={conversation ?? "new"}
          items={shown}
          loading={conversation !== null && items === null && !error}
          error={error}
          onRetry={() => void reload().catch(() => undefined)}
          live={live}
          onFollow={elsewhere === null ? null : () => conversation && turns.attach(conversation, elsewhere)}
          busy={busy}
          models={usable}
          more={more}
          onEarlier={() => attempt(earlier)}
          onRegenerate={regenerate}
          onBranch={branch}
          onEdit={edit}
          onResult={(call, output) => send([{ type: "function_call_output", ...(call && { call_id: call }), output }])}
        />
        <div className="foot">
          {(problem ?? models.error) && (
            <p className="problem" role="alert">
              {(problem ?? models.error)?.message} {(problem ?? models.error)?.code && <code>{(problem ?? models.error)?.code}</code>}
            </p>
          )}
          <SettingsPanel settings={settings} onChange={change} />
          <Composer
            field={field}
            text={draft}
            onText={write}
            running={running}
            disabled={!model || busy}
            onSend={(item) => send([item])}
            onStop={() => conversation && void turns.stop(conversation)}
          >
            <label className="model">
              <span className="hidden">Model</span>
              <select value={model?.id ?? ""} onChange={(event) => change({ model: event.target.value })}>
                {usable.map(({ id, description }) => (
                  <option key={id} value={id} title={description ?? undefined}>
                    {id}
                  </option>
                ))}
              </select>
            </label>
          </Composer>
        </div>
      </section>
    </div>
  );
}

/** The items of a conversation, read again when a turn of it has ended. */
function useThread(conversation: string | null, live: Live | undefined, turns: LiveTurns, onChange: () => void) {
  const api = useApi();
  const [state, setState] = useState<{ of: string | null; items: Item[] | null; more: boolean; error: Told | null }>({
    of: null,
    items: null,
    more: false,
    error: null,
  });

  const page = (after?: string) =>
    api.get<List<Item>>(`/conversations/${conversation}/items`, { limit: PAGE, order: "desc", after });

  const reload = async () => {
    if (!conversation) return;
    try {
      const { data, has_more } = await page();
      setState({ of: conversation, items: data.reverse(), more: has_more, error: null });
    } catch (error) {
      setState((was) => ({ ...was, of: conversation, error: told(error) }));
      throw error;
    }
  };

  const earlier = async () => {
    const first = state.items?.[0]?.id;
    if (!first) return;
    const { data, has_more } = await page(first);
    setState((was) => ({ ...was, items: [...data.reverse(), ...(was.items ?? [])], more: has_more }));
  };

  useEffect(() => {
    setState({ of: conversation, items: null, more: false, error: null });
    reload().catch(() => undefined);
    // `reload` is made anew each time; the conversation is what it depends on.
  }, [conversation]);

  const over = live?.over === true && live.error === null;
  const { turn } = live ?? {};
  useEffect(() => {
    if (!conversation || !over) return;
    const last = turn?.items.findLast(({ id }) => id !== undefined)?.id;
    if (last && turn?.usage && turn.model) remember(last, { model: turn.model, tokens: turn.usage });
    // What the turn itself says of its end stays in sight; what it brought stands in the conversation.
    if (turn?.status === "completed") {
      reload()
        .then(() => turns.dismiss(conversation))
        .catch(() => undefined);
    } else {
      reload().catch(() => undefined);
    }
    onChange();
  }, [conversation, over]);

  const own = state.of === conversation;
  return { items: own ? state.items : null, more: own && state.more, error: own ? state.error : null, earlier, reload };
}
