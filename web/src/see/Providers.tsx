import { useApi } from "../api/session";
import type { List, Model, Status } from "../api/types";
import { address } from "../routes";
import { count, money, percent } from "../ui/format";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";
import { callsOf } from "./figures";
import { useMetrics } from "./history";
import { LOOK, Pane, State, Table } from "./parts";

type Deployment = Status["deployments"][number];

export function Providers() {
  const api = useApi();
  const loaded = useLoad("status", (signal) => api.health.get<Status>("/status", signal), LOOK);
  const metrics = useMetrics();
  const total = metrics.data?.history.total ?? new Map<string, number>();
  const open = loaded.data?.deployments.filter(({ breaker }) => breaker !== "closed").length ?? 0;
  return (
    <Pane title="Providers">
      <Shown loaded={loaded} isEmpty={({ deployments }) => deployments.length === 0} empty="colloquy.toml names no deployment of a model.">
        {({ deployments }) => (
          <>
            <p className="total" role="status">
              {open === 0 ? "All deployments are asked." : <><strong>{open}</strong> of {deployments.length} deployments are left alone after failures.</>}
            </p>
            <Table<Deployment>
              label="Deployments of models"
              rows={deployments}
              rowKey={({ name }) => name}
              columns={[
                { name: "Deployment", cell: ({ name }) => <strong>{name}</strong> },
                { name: "Provider", cell: ({ provider }) => provider },
                { name: "Breaker", cell: ({ breaker }) => <State state={breaker} /> },
                { name: "Calls", number: true, cell: ({ name }) => count(callsOf(total, name).all) },
                {
                  name: "Failed",
                  number: true,
                  cell: ({ name }) => {
                    const { all, failed } = callsOf(total, name);
                    return all === 0 ? "–" : `${count(failed)} (${percent(failed / all)})`;
                  },
                },
                { name: "Retries", number: true, cell: ({ name }) => count(callsOf(total, name).retries) },
                { name: "Failing in a row", number: true, cell: ({ name }) => count(callsOf(total, name).inARow) },
              ]}
            />
            <p className="note">
              As the process that answered sees them, since it began. A closed breaker lets calls through; one that is open leaves the deployment alone for a while, then tries it with one
              call (half-open). <a href={address("switches")}>Switches</a> stop a deployment by hand.
            </p>
          </>
        )}
      </Shown>
      <Models />
    </Pane>
  );
}

/** What callers may ask for. */
function Models() {
  const api = useApi();
  const loaded = useLoad("models", (signal) => api.get<List<Model>>("/models", {}, signal));
  const price = (name: string, of: keyof Model["price"]) => ({ name, number: true, cell: ({ price }: Model) => money(price[of]) });
  return (
    <>
      <h3>Models, and what a million tokens cost at most</h3>
      <Shown loaded={loaded} isEmpty={({ data }) => data.length === 0} empty="There are none.">
        {({ data }) => (
          <Table<Model>
            label="Models"
            rows={data}
            rowKey={({ id }) => id}
            columns={[
              { name: "Model", cell: ({ id }) => id },
              { name: "Window", number: true, cell: ({ context_window }) => count(context_window) },
              price("Input", "input"),
              price("Cached", "cached_input"),
              price("Output", "output"),
              { name: "About", cell: ({ description }) => description ?? "–" },
            ]}
          />
        )}
      </Shown>
    </>
  );
}
