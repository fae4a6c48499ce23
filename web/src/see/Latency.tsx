import { useState } from "react";
import { clock, count, duration } from "../ui/format";
import { Shown } from "../ui/States";
import { Chart, type Slot } from "./Chart";
import { FIRST_TOKEN, TIMES, type Timed, type TimesOf, isTraffic, timesBy } from "./figures";
import { useMetrics } from "./history";
import { type History, histogram, quantile, stretches } from "./metrics";
import { Choice, Pane, Table } from "./parts";

/** How far a chart looks back, and in what steps. */
export const SPANS = [
  ["15", "15 minutes"],
  ["60", "an hour"],
] as const;
export type Span = (typeof SPANS)[number][0];
const STRETCHES = 60;

/** The stretches of a chart, with borders that stay where they are from look to look. */
export function spread(history: History, span: Span, now: number) {
  const every = (Number(span) * 60_000) / STRETCHES;
  return stretches(history.points, STRETCHES, every, Math.ceil(now / every) * every);
}

export function Latency() {
  const loaded = useMetrics();
  const [span, setSpan] = useState<Span>("15");
  const [of, setOf] = useState(FIRST_TOKEN.name);
  const [only, setOnly] = useState("");
  const timed = TIMES.find(({ name }) => name === of) ?? FIRST_TOKEN;
  return (
    <Pane title="Latency">
      <Shown loaded={loaded} isEmpty={() => false} empty="">
        {({ history, now }) => {
          const all = timesBy(history.total, timed);
          const chosen = all.some(({ name }) => name === only) ? only : "";
          return (
            <>
              <div className="filters">
                <Choice label="Time to" value={of} options={TIMES.map(({ name }) => [name, name] as const)} onChange={setOf} />
                <Choice label={timed.by === "route" ? "Route" : "Model"} value={chosen} options={[["", "all"], ...all.map(({ name }) => [name, name] as const)]} onChange={setOnly} />
                <Choice<Span> label="Look back" value={span} options={SPANS} onChange={setSpan} />
              </div>
              <Times history={history} now={now} span={span} timed={timed} only={chosen} />
              <h3>Since the {history.processes > 1 ? `${history.processes} processes` : "process"} began</h3>
              {all.length === 0 ? <div className="empty">Nothing was timed yet. Talk first.</div> : <Totals all={all} timed={timed} />}
              <p className="note">
                The chart holds what was seen since this console was opened, of the processes that answered it. What lies further back is on the deployment’s dashboard.
              </p>
            </>
          );
        }}
      </Shown>
    </Pane>
  );
}

function Times({ history, now, span, timed, only }: { history: History; now: number; span: Span; timed: Timed; only: string }) {
  const slots: Slot[] = spread(history, span, now).map(({ at, counted }) => {
    const buckets = histogram(counted, timed.metric, (labels) => isTraffic(labels) && (only === "" || labels[timed.by] === only));
    return { name: clock(at), values: [quantile(buckets, 0.5), quantile(buckets, 0.95)] };
  });
  const newest = slots.findLast(({ values }) => values[0] !== null);
  return (
    <Chart
      kind="lines"
      label={`Time to ${timed.name}`}
      names={["p50", "p95"]}
      slots={slots}
      say={duration}
      head={
        newest ? (
          <>
            <strong>{duration(newest.values[0] ?? 0)}</strong> half of them, <strong>{duration(newest.values[1] ?? 0)}</strong> 95 % of them, at {newest.name}
          </>
        ) : (
          "Nothing was timed since this console was opened."
        )
      }
    />
  );
}

function Totals({ all, timed }: { all: TimesOf[]; timed: Timed }) {
  const time = (name: "p50" | "p95" | "p99") => ({ name, number: true, cell: (row: TimesOf) => (row[name] === null ? "–" : duration(row[name])) });
  return (
    <Table<TimesOf>
      label={`Time to ${timed.name}, since the process began`}
      rows={all}
      rowKey={({ name }) => name}
      columns={[
        { name: timed.by === "route" ? "Route" : "Model", cell: ({ name }) => name },
        { name: "How many", number: true, cell: (row) => count(row.count) },
        time("p50"),
        time("p95"),
        time("p99"),
      ]}
    />
  );
}
