import { useState } from "react";
import { useApi } from "../api/session";
import type { Grant } from "../api/types";
import { Confirm } from "../ui/Confirm";
import { Listing, Time } from "./parts";

type Wish = { do: "give" | "revoke"; conversation: string; grantee: string; access: Grant["access"] };

/** Who may read or write a conversation that is another's. */
export function Grants() {
  const api = useApi();
  const [wish, setWish] = useState<{ wish: Wish; done: () => void } | null>(null);
  const carryOut = ({ do: what, conversation, grantee, access }: Wish, reason: string) => {
    const because = reason ? { reason } : {};
    return what === "give"
      ? api.admin.post("/grants", { conversation, grantee, access, ...because })
      : api.admin.delete(`/grants/${conversation}/${encodeURIComponent(grantee)}`, because);
  };
  return (
    <>
      <Listing<Grant>
        path="/grants"
        title="Grants"
        rowKey={({ conversation, grantee }) => `${conversation}/${grantee}`}
        empty="Nobody may see what is another’s."
        filters={[
          { name: "owner", label: "Owner" },
          { name: "grantee", label: "Who may" },
        ]}
        columns={(done) => [
          { name: "Conversation", cell: (row) => <code>{row.conversation}</code> },
          { name: "Of", cell: (row) => row.owner },
          { name: "Who may", cell: (row) => row.grantee },
          { name: "What", cell: (row) => row.access },
          { name: "Given by", cell: (row) => row.created_by },
          { name: "Since", cell: (row) => <Time at={row.created_at} /> },
          {
            name: "Take back",
            cell: ({ conversation, grantee, access }) => (
              <button type="button" onClick={() => setWish({ wish: { do: "revoke", conversation, grantee, access }, done })}>
                Take back
              </button>
            ),
          },
        ]}
        below={(done) => <Give onWish={(wish) => setWish({ wish, done })} />}
      />
      {wish && (
        <Confirm
          title={wish.wish.do === "give" ? "Give the grant?" : "Take the grant back?"}
          action={wish.wish.do === "give" ? "Give it" : "Take it back"}
          danger={wish.wish.do === "revoke"}
          onClose={() => setWish(null)}
          onConfirm={async (reason) => {
            await carryOut(wish.wish, reason);
            wish.done();
          }}
        >
          <p>
            <strong>{wish.wish.grantee}</strong> {wish.wish.do === "give" ? `may ${wish.wish.access}` : `may no longer ${wish.wish.access}`} <code>{wish.wish.conversation}</code>.
            {wish.wish.do === "revoke" && " A turn of theirs that runs on it is cancelled."}
          </p>
        </Confirm>
      )}
    </>
  );
}

function Give({ onWish }: { onWish: (wish: Wish) => void }) {
  const [conversation, setConversation] = useState("");
  const [grantee, setGrantee] = useState("");
  const [access, setAccess] = useState<Grant["access"]>("read");
  return (
    <>
      <h3>Give a grant</h3>
      <form
        className="filters"
        onSubmit={(event) => {
          event.preventDefault();
          onWish({ do: "give", conversation: conversation.trim(), grantee: grantee.trim(), access });
        }}
      >
        <label>
          Conversation
          <input required placeholder="conv_…" value={conversation} onChange={(event) => setConversation(event.target.value)} />
        </label>
        <label>
          To whom
          <input required value={grantee} onChange={(event) => setGrantee(event.target.value)} />
        </label>
        <label>
          May
          <select value={access} onChange={(event) => setAccess(event.target.value as Grant["access"])}>
            <option value="read">read</option>
            <option value="write">write</option>
          </select>
        </label>
        <button type="submit" disabled={!conversation.trim() || !grantee.trim()}>
          Give…
        </button>
      </form>
    </>
  );
}
