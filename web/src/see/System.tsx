import { useApi } from "../api/session";
import type { Migration, Migrations, Status } from "../api/types";
import { count, exact } from "../ui/format";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";
import { Facts, LOOK, Pane, State, Table, Time } from "./parts";

/** Versions: of the process that answers, and of the schema. */
export function System() {
  const api = useApi();
  const status = useLoad("status", (signal) => api.health.get<Status>("/status", signal), LOOK);
  const schema = useLoad("migrations", (signal) => api.admin.get<Migrations>("/migrations", {}, signal), LOOK * 6);
  return (
    <Pane title="System">
      <Shown loaded={status} isEmpty={() => false} empty="">
        {(status) => <Process status={status} />}
      </Shown>
      <h3>Schema</h3>
      <Shown loaded={schema} isEmpty={() => false} empty="">
        {(migrations) => <Schema migrations={migrations} />}
      </Shown>
    </Pane>
  );
}

function Process({ status }: { status: Status }) {
  const { database_pool: pool, connections, budgets } = status;
  return (
    <>
      <Facts
        facts={[
          ["Version", status.version],
          ["Environment", status.environment],
          ["Process that answered", <code>{status.instance}</code>],
          ["State", status.stopping ? <State state="stopping" /> : "running"],
          ["Its clock", exact(status.time)],
          ["Connections", `${count(connections.open)} of ${count(connections.limit)}`],
          ["Turns in flight", count(status.turns.length)],
          ["Database connections", `${pool.size - pool.available} of ${pool.max_size} in use, ${pool.waiting} wait`],
          ["Other processes are heard", status.shared ? "yes, through Redis" : "no: limits count here alone"],
          ["Usage is written", budgets.tracked ? `${count(budgets.rows.waiting)} rows wait, ${count(budgets.rows.lost)} lost` : "no"],
        ]}
      />
      <Table<Status["checks"][number]>
        label="Checks"
        rows={status.checks}
        rowKey={({ name }) => name}
        columns={[
          { name: "Check", cell: ({ name }) => name },
          { name: "State", cell: ({ ok }) => <State state={ok ? "ok" : "failed"} /> },
          { name: "Detail", cell: ({ detail }) => detail ?? "–" },
        ]}
      />
    </>
  );
}

function Schema({ migrations: { current, latest, applied, pending, unknown, problem } }: { migrations: Migrations }) {
  const rows = [...pending.map((migration) => ({ ...migration, state: "pending" })), ...applied.map((migration) => ({ ...migration, state: "applied" }))];
  return (
    <>
      {problem && <p className="problem" role="alert">{problem}</p>}
      <p role="status">
        The schema is at version <strong>{current}</strong>; this server knows up to {latest}.{" "}
        {pending.length > 0 && `${pending.length} are due: run function-handlers migrate.`}
        {unknown.length > 0 && "A newer version was here before, which this one can serve with."}
      </p>
      <Table<Migration & { state: string }>
        label="Migrations"
        rows={rows}
        rowKey={({ version }) => String(version)}
        columns={[
          { name: "Version", number: true, cell: ({ version }) => version },
          { name: "Name", cell: ({ name }) => name.replaceAll("_", " ") },
          { name: "State", cell: ({ state }) => <State state={state} /> },
          { name: "Applied", cell: ({ applied_at }) => <Time at={applied_at ?? null} /> },
        ]}
      />
    </>
  );
}
