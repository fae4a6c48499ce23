import { useState } from "react";
import { useApi } from "../api/session";
import type { EventDetail, EventLine } from "../api/types";
import { address } from "../routes";
import { Confirm } from "../ui/Confirm";
import { exact } from "../ui/format";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";
import { Facts, LOOK, Listing, Pane, State, Time } from "./parts";
import { timeline } from "./timeline";

export function Events({ id }: { id: string | null }) {
  return id === null ? <All /> : <One key={id} id={id} />;
}

function All() {
  return (
    <Listing<EventLine>
      path="/events"
      title="Events"
      rowKey={({ id }) => id}
      empty="No event has come yet. A signed one is printed by scripts/dev."
      filters={[
        { name: "source", label: "Source" },
        { name: "type", label: "Type (* for any)" },
        { name: "state", label: "State", options: ["processed", "held", "conflict"] },
        { name: "key", label: "Key" },
      ]}
      columns={() => [
        { name: "Received", cell: (row) => <Time at={row.received_at} /> },
        { name: "Source", cell: (row) => row.source },
        { name: "Type", cell: (row) => <a href={address("events", row.id)}>{row.type || row.id}</a> },
        { name: "Key", cell: (row) => <code>{row.key}</code> },
        { name: "State", cell: (row) => <State state={row.state} /> },
        {
          name: "Work",
          cell: (row) => (
            <>
              {row.work_done} of {row.work}{" "}
              {row.dead > 0 && <span className="state bad">{row.dead} dead</span>}
            </>
          ),
        },
      ]}
    />
  );
}

function One({ id }: { id: string }) {
  const api = useApi();
  const [replaying, setReplaying] = useState(false);
  const loaded = useLoad(id, (signal) => api.admin.get<EventDetail>(`/events/${id}`, {}, signal), LOOK);
  return (
    <Pane
      title="Event"
      actions={
        <div className="actions">
          <a className="button" href={address("events")}>
            All events
          </a>
          <button type="button" onClick={() => setReplaying(true)} disabled={!loaded.data}>
            Replay
          </button>
        </div>
      }
    >
      <Shown loaded={loaded} isEmpty={() => false} empty="">
        {(event) => (
          <>
            <Facts
              facts={[
                ["Id", <code>{event.id}</code>],
                ["Source", event.source],
                ["Type", event.type],
                ["Key", <code>{event.key}</code>],
                ["State", <State state={event.state} />],
                ["Run", event.run],
                ["Subject", event.subject],
                ["Request", event.request_id && <code>{event.request_id}</code>],
                ["Trace", event.trace_id && <code>{event.trace_id}</code>],
                ["Body", event.body_bytes === null ? "–" : `${event.body_bytes} bytes`],
              ]}
            />
            <GivenUp count={event.work.filter(({ state }) => state === "dead").length} />
            <h3>What happened</h3>
            <ol className="timeline">
              {timeline(event).map((moment, at) => (
                <li key={at} className={moment.tone}>
                  <time dateTime={moment.at}>{exact(moment.at)}</time>
                  <span>
                    {moment.what}
                    {moment.detail && <span className="note"> {moment.detail}</span>}
                  </span>
                </li>
              ))}
            </ol>
          </>
        )}
      </Shown>
      {replaying && (
        <Confirm
          title="Replay the event?"
          action="Replay"
          onClose={() => setReplaying(false)}
          onConfirm={async (reason) => {
            await api.admin.post(`/events/${id}/replay`, reason ? { reason } : {});
            loaded.again();
          }}
        >
          <p>Its routes are walked again as a new run: jobs run again, callbacks are sent again under the ids they had.</p>
        </Confirm>
      )}
    </Pane>
  );
}

/** What of an event waits for a person, and where. */
function GivenUp({ count }: { count: number }) {
  if (count === 0) return null;
  return (
    <p>
      <span className="state bad">{count} dead</span> {count === 1 ? "A part of what follows from it was" : "Parts of what follows from it were"} given up. The{" "}
      <a href={address("dead-letters")}>dead letters</a> do {count === 1 ? "it" : "them"} again, once what was in the way is mended.
    </p>
  );
}
