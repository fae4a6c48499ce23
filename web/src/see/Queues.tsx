import { useState } from "react";
import { useApi } from "../api/session";
import type { Backlog, List, Queue, Queues as All, Target } from "../api/types";
import { Confirm } from "../ui/Confirm";
import { clock, count, duration } from "../ui/format";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";
import { Chart, type Slot } from "./Chart";
import { type Seen, useSeen } from "./history";
import { Choice, LOOK, Pane, State, Table, Time } from "./parts";

/** Looks that a chart shows: ten minutes. */
const SHOWN = 120;

type Measure = "depth" | "age";

export function Queues() {
  const api = useApi();
  const [what, setWhat] = useState<Measure>("depth");
  const loaded = useSeen("queues", (signal) => api.admin.get<All>("/queues", {}, signal));
  return (
    <Pane title="Queues">
      <Shown loaded={loaded} isEmpty={(seen) => seen.length === 0} empty="">
        {(seen) => {
          const newest = seen.at(-1)?.value;
          return (
            <>
              <div className="filters">
                <Choice<Measure> label="Show" value={what} options={[["depth", "how much waits"], ["age", "how long the oldest has waited"]]} onChange={setWhat} />
              </div>
              <Live seen={seen} what={what} />
              {newest?.queues === null ? <p className="note">No storage is set for this server, so only the rows of work are known.</p> : <Depths queues={newest?.queues ?? []} />}
              <Backlogs work={newest?.work ?? []} />
            </>
          );
        }}
      </Shown>
      <Targets />
    </Pane>
  );
}

/** How it went while this page was open. */
function Live({ seen, what }: { seen: readonly Seen<All>[]; what: Measure }) {
  const names = [...new Set(seen.flatMap(({ value }) => (value.queues ?? []).map(({ queue }) => queue)))].filter((name) => !name.endsWith("-poison"));
  const rows = ["job", "callback"] as const;
  const slots: Slot[] = seen.slice(-SHOWN).map(({ at, value }) => ({
    name: clock(at),
    values: [
      ...names.map((name) => figure(value.queues?.find(({ queue }) => queue === name), what)),
      ...rows.map((kind) => waiting(value.work.find((work) => work.kind === kind), what)),
    ],
  }));
  const now = slots.at(-1)?.values.map((value) => value ?? 0) ?? [];
  const say = what === "depth" ? count : duration;
  const most = what === "depth" ? now.reduce((sum, value) => sum + value, 0) : Math.max(0, ...now);
  return (
    <Chart
      kind="lines"
      label={what === "depth" ? "What waits, while this page is open" : "Age of the oldest, while this page is open"}
      names={[...names.map((name) => `queue ${name}`), ...rows.map((kind) => `${kind}s due`)]}
      slots={slots}
      say={say}
      head={
        <>
          <strong>{say(most)}</strong> {what === "depth" ? (most === 0 ? "waits: all is done" : "wait now") : "is the longest wait now"}
        </>
      }
    />
  );
}

function figure(queue: Queue | undefined, what: Measure): number | null {
  if (!queue || queue.messages === null) return null;
  return what === "depth" ? queue.messages : queue.oldest_seconds ?? 0;
}

function waiting(work: Backlog | undefined, what: Measure): number | null {
  if (!work) return null;
  return what === "depth" ? work.due : work.oldest_due_seconds;
}

function Depths({ queues }: { queues: Queue[] }) {
  return (
    <>
      <h3>Queues of storage</h3>
      <Table<Queue>
        label="Queues of storage"
        rows={queues}
        rowKey={({ queue }) => queue}
        columns={[
          { name: "Queue", cell: ({ queue }) => <code>{queue}</code> },
          { name: "Messages", number: true, cell: ({ messages }) => (messages === null ? "–" : count(messages)) },
          { name: "Oldest", number: true, cell: ({ oldest_seconds }) => (oldest_seconds === null ? "–" : duration(oldest_seconds)) },
          { name: "Problem", cell: ({ error }) => (error === null ? "–" : <span className="bad">{error}</span>) },
        ]}
      />
    </>
  );
}

function Backlogs({ work }: { work: Backlog[] }) {
  return (
    <>
      <h3>Rows of work</h3>
      <Table<Backlog>
        label="Rows of work"
        rows={work}
        rowKey={({ kind }) => kind}
        columns={[
          { name: "Kind", cell: ({ kind }) => `${kind}s` },
          { name: "Due", number: true, cell: ({ due }) => count(due) },
          { name: "Oldest due", number: true, cell: ({ due, oldest_due_seconds }) => (due === 0 ? "–" : duration(oldest_due_seconds)) },
          { name: "Later", number: true, cell: ({ scheduled }) => count(scheduled) },
          { name: "Worked on", number: true, cell: ({ leased }) => count(leased) },
          { name: "Target disabled", number: true, cell: ({ target_disabled }) => count(target_disabled) },
          { name: "Dead letters", number: true, cell: ({ open_dead_letters }) => count(open_dead_letters) },
        ]}
      />
    </>
  );
}

/** Receivers of callbacks: one that answered 410 gets no more until somebody enables it. */
function Targets() {
  const api = useApi();
  const [chosen, setChosen] = useState<Target | null>(null);
  const loaded = useLoad("targets", (signal) => api.admin.get<List<Target>>("/targets", {}, signal), LOOK * 3);
  return (
    <>
      <h3>Targets of callbacks</h3>
      <Shown loaded={loaded} isEmpty={({ data }) => data.length === 0} empty="colloquy.toml names none.">
        {({ data }) => (
          <Table<Target>
            label="Targets of callbacks"
            rows={data}
            rowKey={({ target }) => target}
            columns={[
              { name: "Target", cell: ({ target }) => target },
              { name: "State", cell: ({ state }) => <State state={state} /> },
              { name: "Since", cell: ({ at }) => <Time at={at ?? null} /> },
              { name: "Why", cell: ({ reason }) => reason ?? "–" },
              {
                name: "Enable",
                cell: (target) =>
                  target.state === "disabled" && (
                    <button type="button" onClick={() => setChosen(target)}>
                      Enable
                    </button>
                  ),
              },
            ]}
          />
        )}
      </Shown>
      {chosen && (
        <Confirm
          title="Enable the target?"
          action="Enable"
          onClose={() => setChosen(null)}
          onConfirm={async (reason) => {
            await api.admin.post(`/targets/${encodeURIComponent(chosen.target)}/enable`, reason ? { reason } : {});
            loaded.again();
          }}
        >
          <p>
            <strong>{chosen.target}</strong> gets its callbacks again, those that wait first.
          </p>
        </Confirm>
      )}
    </>
  );
}
