import { useState } from "react";
import { useApi } from "../api/session";
import type { RunningTurn } from "../api/types";
import { Confirm } from "../ui/Confirm";
import { Listing, State, Time } from "./parts";

export function Turns() {
  const api = useApi();
  const [chosen, setChosen] = useState<{ turn: RunningTurn; done: () => void } | null>(null);
  return (
    <>
      <Listing<RunningTurn>
        path="/turns"
        title="Turns"
        rowKey={({ id }) => id}
        empty="Nobody is being answered just now."
        filters={[
          { name: "state", label: "State", options: ["queued", "in_progress"] },
          { name: "model", label: "Model" },
          { name: "owner", label: "Owner" },
        ]}
        columns={(done) => [
          { name: "Since", cell: (row) => <Time at={row.created_at} /> },
          { name: "Owner", cell: (row) => row.owner },
          { name: "Model", cell: (row) => row.model },
          { name: "State", cell: (row) => <State state={row.state} /> },
          { name: "Held by", cell: (row) => (row.holder ? <code>{row.holder}</code> : "–") },
          { name: "Viewers", number: true, cell: (row) => row.here?.viewers ?? "–" },
          { name: "Tokens", number: true, cell: (row) => row.here?.chunks ?? "–" },
          { name: "Restarts", number: true, cell: (row) => row.restarts },
          {
            name: "Stop",
            cell: (turn) =>
              turn.cancel_requested_at ? (
                <span className="note">is being stopped</span>
              ) : (
                <button type="button" onClick={() => setChosen({ turn, done })}>
                  Cancel
                </button>
              ),
          },
        ]}
      />
      {chosen && (
        <Confirm
          title="Cancel the turn?"
          action="Cancel the turn"
          danger
          onClose={() => setChosen(null)}
          onConfirm={async (reason) => {
            await api.admin.post(`/turns/${chosen.turn.id}/cancel`, reason ? { reason } : {});
            chosen.done();
          }}
        >
          <p>
            {chosen.turn.owner} is being answered by {chosen.turn.model}. The answer ends here, as cancelled.
          </p>
        </Confirm>
      )}
    </>
  );
}
