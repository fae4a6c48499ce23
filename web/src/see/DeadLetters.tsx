import { useState } from "react";
import { useApi } from "../api/session";
import type { DeadLetter } from "../api/types";
import { address } from "../routes";
import { Confirm } from "../ui/Confirm";
import { Listing, State, Time } from "./parts";

interface Choice {
  letter: DeadLetter;
  what: "replay" | "discard";
  done: () => void;
}

export function DeadLetters() {
  const api = useApi();
  const [choice, setChoice] = useState<Choice | null>(null);
  return (
    <>
      <Listing<DeadLetter>
        path="/dead-letters"
        title="Dead letters"
        rowKey={({ id }) => id}
        empty="There are none: everything that came could be done."
        filters={[
          { name: "state", label: "State (open unless said)", options: ["open", "replayed", "discarded", "*"] },
          { name: "kind", label: "Kind", options: ["job", "callback", "message"] },
          { name: "source", label: "Source" },
          { name: "route", label: "Route" },
          { name: "code", label: "Code" },
        ]}
        columns={(done) => [
          { name: "Since", cell: (row) => <Time at={row.created_at} /> },
          { name: "Kind", cell: (row) => row.kind },
          { name: "Route", cell: (row) => row.route ?? row.queue ?? "–" },
          { name: "Why", cell: (row) => <><code>{row.reason_code}</code> <span className="note">{row.reason}</span></> },
          { name: "Attempts", number: true, cell: (row) => row.attempts },
          { name: "State", cell: (row) => <State state={row.state} /> },
          { name: "Event", cell: (row) => (row.event ? <a href={address("events", row.event)}>show</a> : "–") },
          {
            name: "Settle",
            cell: (letter) =>
              letter.state === "open" && (
                <div className="actions">
                  <button type="button" onClick={() => setChoice({ letter, what: "replay", done })}>
                    Replay
                  </button>
                  <button type="button" onClick={() => setChoice({ letter, what: "discard", done })}>
                    Discard
                  </button>
                </div>
              ),
          },
        ]}
      />
      {choice && (
        <Confirm
          title={choice.what === "replay" ? "Replay the dead letter?" : "Discard the dead letter?"}
          action={choice.what === "replay" ? "Replay" : "Discard"}
          danger={choice.what === "discard"}
          reason={choice.what === "replay" ? "optional" : "needed"}
          onClose={() => setChoice(null)}
          onConfirm={async (reason) => {
            await api.admin.post(`/dead-letters/${choice.letter.id}/${choice.what}`, reason ? { reason } : {});
            choice.done();
          }}
        >
          <p>
            {choice.letter.kind} of route {choice.letter.route ?? choice.letter.queue ?? "–"}: {choice.letter.reason}
          </p>
          <p>
            {choice.what === "replay"
              ? "It is done again as if for the first time, with all its attempts."
              : "It will never be done. This is the last word on it."}
          </p>
        </Confirm>
      )}
    </>
  );
}
