import type { Work } from "../api/types";
import { address } from "../routes";
import { Listing, State, Time } from "./parts";

export function WorkPage({ kind }: { kind: Work["kind"] }) {
  const job = kind === "job";
  return (
    <Listing<Work>
      path={job ? "/jobs" : "/callbacks"}
      title={job ? "Jobs" : "Callbacks"}
      rowKey={({ id }) => id}
      empty={job ? "No job was written down yet. Routes make them of events." : "No callback was written down yet."}
      filters={[
        job ? { name: "kind", label: "Kind" } : { name: "target", label: "Target" },
        { name: "route", label: "Route" },
        {
          name: "state",
          label: "State",
          options: job ? ["pending", "leased", "succeeded", "dead"] : ["pending", "leased", "delivered", "dead"],
        },
      ]}
      columns={() => [
        { name: "Created", cell: (row) => <Time at={row.created_at} /> },
        { name: job ? "Kind" : "Target", cell: (row) => row.object },
        { name: "Route", cell: (row) => row.route },
        { name: "State", cell: (row) => <State state={row.state} /> },
        { name: "Attempts", number: true, cell: (row) => row.attempts },
        { name: "Due", cell: (row) => (row.finished_at === null ? <Time at={row.due_at} /> : <Time at={row.finished_at} />) },
        {
          name: "Error",
          cell: (row) => (row.error_code ? <span title={row.error ?? undefined}><code>{row.error_code}</code></span> : "–"),
        },
        { name: "Event", cell: (row) => (row.event ? <a href={address("events", row.event)}>show</a> : "–") },
      ]}
    />
  );
}
