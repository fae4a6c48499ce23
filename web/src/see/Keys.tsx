import { useState } from "react";
import { useApi } from "../api/session";
import type { Key, NewKey } from "../api/types";
import { Code } from "../talk/Code";
import { Confirm } from "../ui/Confirm";
import { keyState } from "./figures";
import { Listing, State, Time } from "./parts";

/** What an operator is about to do. */
type Wish = Making | { do: "rotate"; key: Key } | { do: "expire"; key: Key };

interface Making {
  do: "make";
  name: string;
  owner: string;
  operator: boolean;
  /** 0: until it is ended. */
  days: number;
}

export function Keys() {
  const api = useApi();
  const [wish, setWish] = useState<{ wish: Wish; done: () => void } | null>(null);
  const [made, setMade] = useState<NewKey | null>(null);

  const carryOut = async (wish: Wish, reason: string) => {
    const because = reason ? { reason } : {};
    if (wish.do === "expire") await api.admin.post(`/keys/${wish.key.id}/expire`, because);
    else if (wish.do === "rotate") setMade(await api.admin.post<NewKey>(`/keys/${wish.key.id}/rotate`, because));
    else {
      const { name, owner, operator, days } = wish;
      const expires_at = days > 0 ? new Date(Date.now() + days * 86_400_000).toISOString() : null;
      setMade(await api.admin.post<NewKey>("/keys", { name, owner, scopes: operator ? ["operator"] : [], expires_at, ...because }));
    }
  };

  return (
    <>
      {made && <Made made={made} onDone={() => setMade(null)} />}
      <Listing<Key>
        path="/keys"
        title="Keys"
        rowKey={({ id }) => id}
        empty="No key was made at run time. Those of the setting AUTH_API_KEYS are not listed."
        filters={[{ name: "owner", label: "Owner" }]}
        columns={(done) => [
          { name: "Name", cell: (row) => <><strong>{row.name}</strong> <code>{row.id}</code></> },
          { name: "Owner", cell: (row) => row.owner },
          { name: "State", cell: (row) => <State state={keyState(row)} /> },
          { name: "May", cell: (row) => (row.scopes.length > 0 ? row.scopes.join(", ") : "talk") },
          { name: "Made", cell: (row) => <Time at={row.created_at} /> },
          { name: "Ends", cell: (row) => <Time at={row.revoked_at ?? row.expires_at} /> },
          { name: "Last used", cell: (row) => row.last_used_day ?? "never" },
          {
            name: "Change",
            cell: (key) =>
              keyState(key) === "in force" && (
                <div className="actions">
                  {key.replaced_by === null && (
                    <button type="button" onClick={() => setWish({ wish: { do: "rotate", key }, done })}>
                      Rotate
                    </button>
                  )}
                  <button type="button" onClick={() => setWish({ wish: { do: "expire", key }, done })}>
                    End
                  </button>
                </div>
              ),
          },
        ]}
        below={(done) => <Make onWish={(wish) => setWish({ wish, done })} />}
      />
      {wish && (
        <Confirm
          title={TITLE[wish.wish.do]}
          action={ACTION[wish.wish.do]}
          danger={wish.wish.do === "expire"}
          onClose={() => setWish(null)}
          onConfirm={async (reason) => {
            await carryOut(wish.wish, reason);
            wish.done();
          }}
        >
          <Meaning wish={wish.wish} />
        </Confirm>
      )}
    </>
  );
}

const TITLE = { make: "Make a key?", rotate: "Rotate the key?", expire: "End the key?" } as const;
const ACTION = { make: "Make it", rotate: "Rotate", expire: "End it" } as const;

function Meaning({ wish }: { wish: Wish }) {
  switch (wish.do) {
    case "make":
      return (
        <p>
          <strong>{wish.name}</strong> acts for <strong>{wish.owner}</strong>
          {wish.operator && ", and may see and change everything here"}
          {wish.days > 0 ? `, for ${wish.days} days` : ", until it is ended"}.
        </p>
      );
    case "rotate":
      return (
        <p>
          A new key takes the place of <strong>{wish.key.name}</strong>. The old one goes on for a day (API_KEY_OVERLAP), then it ends by itself.
        </p>
      );
    case "expire":
      return (
        <p>
          <strong>{wish.key.name}</strong> of {wish.key.owner} is refused everywhere within moments. It cannot be brought back.
        </p>
      );
  }
}

function Made({ made, onDone }: { made: NewKey; onDone: () => void }) {
  return (
    <section className="pane" aria-label="The new key">
      <div className="pane-head">
        <h2>The new key of {made.name}</h2>
        <button type="button" onClick={onDone}>
          I have it
        </button>
      </div>
      <p role="status">It is shown this once: the server keeps only what proves it.</p>
      <Code text={made.key} language="key" />
    </section>
  );
}

function Make({ onWish }: { onWish: (wish: Wish) => void }) {
  const [name, setName] = useState("");
  const [owner, setOwner] = useState("");
  const [operator, setOperator] = useState(false);
  const [days, setDays] = useState("90");
  return (
    <>
      <h3>Make a key</h3>
      <form
        className="filters"
        onSubmit={(event) => {
          event.preventDefault();
          onWish({ do: "make", name: name.trim(), owner: owner.trim(), operator, days: Number(days) });
        }}
      >
        <label>
          Name
          <input required maxLength={100} value={name} onChange={(event) => setName(event.target.value)} />
        </label>
        <label>
          Acts for
          <input required maxLength={100} value={owner} onChange={(event) => setOwner(event.target.value)} />
        </label>
        <label>
          Days (0: until it is ended)
          <input type="number" min={0} max={3650} required value={days} onChange={(event) => setDays(event.target.value)} />
        </label>
        <label className="check">
          <input type="checkbox" checked={operator} onChange={(event) => setOperator(event.target.checked)} /> operator
        </label>
        <button type="submit" disabled={!name.trim() || !owner.trim()}>
          Make…
        </button>
      </form>
    </>
  );
}
