import { memo, useDeferredValue, useEffect, useState } from "react";
import { told } from "../api/errors";
import { useApi } from "../api/session";
import type { Conversation, List } from "../api/types";
import { address, go } from "../routes";
import { Confirm } from "../ui/Confirm";
import { Problem, Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";

/** All conversations, newest first, to find, name anew and delete. `version` changes when there is reason to look again. */
export const Conversations = memo(function Conversations({ current, version }: { current: string | null; version: number }) {
  const api = useApi();
  const [search, setSearch] = useState("");
  const [limit, setLimit] = useState(50);
  const [deleting, setDeleting] = useState<Conversation | null>(null);
  const [renaming, setRenaming] = useState<string | null>(null);
  const [problem, setProblem] = useState<ReturnType<typeof told> | null>(null);
  const wanted = useDeferredValue(search.trim());
  const loaded = useLoad(`${wanted}/${limit}`, (signal) =>
    api.get<List<Conversation>>("/conversations", { search: wanted, limit, order: "desc" }, signal),
  );
  const { again } = loaded;
  useEffect(() => {
    if (version > 0) again();
  }, [version, again]);

  const rename = async (id: string, title: string) => {
    setRenaming(null);
    setProblem(null);
    try {
      await api.post(`/conversations/${id}`, { title: title.trim() || null });
      again();
    } catch (error) {
      setProblem(told(error));
    }
  };

  return (
    <nav className="conversations" aria-label="Conversations">
      <a className="button primary" href={address("talk")}>
        New conversation
      </a>
      <input
        type="search"
        aria-label="Search conversations"
        placeholder="Search"
        value={search}
        onChange={(event) => setSearch(event.target.value)}
      />
      {problem && <Problem error={problem} />}
      <Shown
        loaded={loaded}
        isEmpty={({ data }) => data.length === 0}
        empty={wanted ? "Nothing found." : "What you talk about is listed here."}
      >
        {({ data, has_more }) => (
          <>
            <ul>
              {data.map((conversation) => (
                <li key={conversation.id} className={conversation.id === current ? "current" : ""}>
                  {renaming === conversation.id ? (
                    <Title title={conversation.title ?? ""} onDone={(title) => void rename(conversation.id, title)} />
                  ) : (
                    <>
                      <a
                        href={address("talk", conversation.id)}
                        aria-current={conversation.id === current ? "page" : undefined}
                      >
                        {conversation.title ?? "Untitled"}
                      </a>
                      <button
                        type="button"
                        className="quiet"
                        aria-label={`Rename ${conversation.title ?? "Untitled"}`}
                        onClick={() => setRenaming(conversation.id)}
                      >
                        ✎
                      </button>
                      <button
                        type="button"
                        className="quiet"
                        aria-label={`Delete ${conversation.title ?? "Untitled"}`}
                        onClick={() => setDeleting(conversation)}
                      >
                        ✕
                      </button>
                    </>
                  )}
                </li>
              ))}
            </ul>
            {has_more && limit < 100 && (
              <button type="button" className="quiet" onClick={() => setLimit(100)}>
                More
              </button>
            )}
          </>
        )}
      </Shown>
      {deleting && (
        <Confirm
          title="Delete the conversation?"
          action="Delete"
          danger
          reason="none"
          onClose={() => setDeleting(null)}
          onConfirm={async () => {
            await api.delete(`/conversations/${deleting.id}`);
            again();
            if (deleting.id === current) go("talk");
          }}
        >
          <p>“{deleting.title ?? "Untitled"}” and everything said in it. It cannot be brought back.</p>
        </Confirm>
      )}
    </nav>
  );
});

function Title({ title, onDone }: { title: string; onDone: (title: string) => void }) {
  const [text, setText] = useState(title);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        onDone(text);
      }}
    >
      <input
        aria-label="Title"
        autoFocus
        maxLength={256}
        value={text}
        onChange={(event) => setText(event.target.value)}
        onBlur={() => onDone(text)}
        onKeyDown={(event) => {
          if (event.key === "Escape") {
            event.stopPropagation();
            onDone(title);
          }
        }}
      />
    </form>
  );
}
