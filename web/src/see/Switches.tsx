import { useId, useState } from "react";
import { useApi } from "../api/session";
import type { Switch, SwitchKind, Switches as All } from "../api/types";
import { Confirm } from "../ui/Confirm";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";
import { LOOK, Pane, State, Table, Time } from "./parts";

const KINDS: readonly SwitchKind[] = ["source", "route", "model", "deployment", "owner", "target", "feature"];

/** What an operator is about to do. */
type Wish = { do: "clear"; kind: string; name: string } | { do: "stop"; kind: string; name: string; stop: "hold" | "refuse"; lasts: string } | { do: "on"; kind: "feature"; name: string };

const path = (kind: string, name: string) => `/switches/${kind}/${encodeURIComponent(name)}`;

export function Switches() {
  const api = useApi();
  const [wish, setWish] = useState<Wish | null>(null);
  const loaded = useLoad("switches", (signal) => api.admin.get<All>("/switches", {}, signal), LOOK);

  const carryOut = async (wish: Wish, reason: string) => {
    const where = path(wish.kind, wish.name);
    if (wish.do === "clear") await api.admin.delete(where, reason ? { reason } : {});
    else if (wish.do === "on") await api.admin.put(where, { on: true, reason });
    else await api.admin.put(where, { stop: wish.stop, reason, ...(wish.lasts && { for: wish.lasts }) });
    loaded.again();
  };

  return (
    <Pane title="Switches">
      <Shown loaded={loaded} isEmpty={() => false} empty="">
        {({ data, features }) => (
          <>
            {data.length === 0 ? (
              <div className="empty">Nothing is stopped.</div>
            ) : (
              <Table<Switch>
                label="Switches"
                rows={data}
                rowKey={({ kind, name }) => `${kind}/${name}`}
                columns={[
                  { name: "What", cell: (row) => <>{row.kind} <strong>{row.name}</strong></> },
                  { name: "State", cell: (row) => <State state={row.stop ?? "on"} /> },
                  { name: "In force", cell: (row) => (row.in_force ? "yes" : "no longer") },
                  { name: "By", cell: (row) => row.by },
                  { name: "Since", cell: (row) => <Time at={row.at} /> },
                  { name: "Until", cell: (row) => <Time at={row.until ?? null} /> },
                  { name: "Why", cell: (row) => row.reason ?? "–" },
                  {
                    name: "Clear",
                    cell: ({ kind, name }) => (
                      <button type="button" onClick={() => setWish({ do: "clear", kind, name })}>
                        Clear
                      </button>
                    ),
                  },
                ]}
              />
            )}
            <h3>Stop something</h3>
            <Stop onWish={setWish} />
            {features.length > 0 && (
              <>
                <h3>Features</h3>
                <ul className="features">
                  {features.map(({ feature, on }) => (
                    <li key={feature}>
                      <span>{feature}</span> <State state={on ? "on" : "off"} />
                      <button
                        type="button"
                        onClick={() =>
                          setWish(
                            on
                              ? { do: "stop", kind: "feature", name: feature, stop: "refuse", lasts: "" }
                              : { do: "on", kind: "feature", name: feature },
                          )
                        }
                      >
                        Turn {on ? "off" : "on"}
                      </button>
                    </li>
                  ))}
                </ul>
              </>
            )}
          </>
        )}
      </Shown>
      {wish && (
        <Confirm
          title={wish.do === "clear" ? "Clear the switch?" : wish.do === "on" ? "Turn the feature on?" : "Stop it?"}
          action={wish.do === "clear" ? "Clear" : wish.do === "on" ? "Turn on" : "Stop"}
          danger={wish.do === "stop"}
          reason={wish.do === "clear" ? "optional" : "needed"}
          onClose={() => setWish(null)}
          onConfirm={(reason) => carryOut(wish, reason)}
        >
          <p>
            {wish.kind} <strong>{wish.name}</strong>
            {wish.do === "stop" && <>: {MEANING[wish.stop]}{wish.lasts && `, for ${wish.lasts}`}</>}. It acts on every
            instance within moments, without a deployment.
          </p>
        </Confirm>
      )}
    </Pane>
  );
}

const MEANING = { hold: "what comes is kept and waits", refuse: "what comes is refused" } as const;

function Stop({ onWish }: { onWish: (wish: Wish) => void }) {
  const id = useId();
  const [kind, setKind] = useState<SwitchKind>("source");
  const [name, setName] = useState("");
  const [stop, setStop] = useState<"hold" | "refuse">("hold");
  const [lasts, setLasts] = useState("");
  return (
    <form
      className="filters"
      onSubmit={(event) => {
        event.preventDefault();
        onWish({ do: "stop", kind, name: name.trim(), stop, lasts: lasts.trim() });
      }}
    >
      <label htmlFor={`${id}-kind`}>
        Kind
        <select id={`${id}-kind`} value={kind} onChange={(event) => setKind(event.target.value as SwitchKind)}>
          {KINDS.map((kind) => (
            <option key={kind}>{kind}</option>
          ))}
        </select>
      </label>
      <label>
        Name
        <input required value={name} onChange={(event) => setName(event.target.value)} />
      </label>
      <label>
        How
        <select value={stop} onChange={(event) => setStop(event.target.value as "hold" | "refuse")}>
          <option value="hold">hold</option>
          <option value="refuse">refuse</option>
        </select>
      </label>
      <label>
        For (may be left out)
        <input placeholder="2h" value={lasts} onChange={(event) => setLasts(event.target.value)} />
      </label>
      <button type="submit" disabled={!name.trim()}>
        Stop…
      </button>
    </form>
  );
}
