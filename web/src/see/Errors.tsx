import { useState } from "react";
import { clock, count, percent } from "../ui/format";
import { Shown } from "../ui/States";
import { Chart, type Slot } from "./Chart";
import { FAILURES, type Failing, failures, ranked, requests } from "./figures";
import { useMetrics } from "./history";
import { SPANS, type Span, spread } from "./Latency";
import { type History, added } from "./metrics";
import { Choice, Pane, Table } from "./parts";

/** A chart has so many colours. */
const PARTS_MAX = 6;

export function Errors() {
  const loaded = useMetrics();
  const [span, setSpan] = useState<Span>("15");
  const [of, setOf] = useState(FAILURES[0]?.name ?? "");
  const failing = FAILURES.find(({ name }) => name === of);
  return (
    <Pane title="Errors">
      <Shown loaded={loaded} isEmpty={() => false} empty="">
        {({ history, now }) => (
          <>
            <div className="filters">
              <Choice label="Of" value={of} options={FAILURES.map(({ name }) => [name, name] as const)} onChange={setOf} />
              <Choice<Span> label="Look back" value={span} options={SPANS} onChange={setSpan} />
            </div>
            {failing && <Failed history={history} now={now} span={span} failing={failing} />}
            <h3>Since the {history.processes > 1 ? `${history.processes} processes` : "process"} began</h3>
            <Totals history={history} />
          </>
        )}
      </Shown>
    </Pane>
  );
}

function Failed({ history, now, span, failing }: { history: History; now: number; span: Span; failing: Failing }) {
  const parts = spread(history, span, now).map(({ at, counted }) => ({ at, counted, sums: failures(counted, failing) }));
  const whole = added(parts.map(({ sums }) => sums));
  const { names, place } = ranked(whole, PARTS_MAX);
  const slots: Slot[] = parts.map(({ at, sums }) => {
    const values = names.map(() => 0);
    for (const [name, value] of sums) values[place(name)] = (values[place(name)] ?? 0) + value;
    return { name: clock(at), values };
  });
  const failed = [...whole.values()].reduce((sum, value) => sum + value, 0);
  const asked = requests(added(parts.map(({ counted }) => counted)));
  return (
    <Chart
      kind="bars"
      label={`Failures of ${failing.name}`}
      names={names}
      slots={slots}
      say={count}
      head={
        <>
          <strong>{count(failed)}</strong> {failing.name === "requests" ? `of ${count(asked)} requests failed (${percent(asked === 0 ? 0 : failed / asked)})` : `failures of ${failing.name}`} since this console was opened
        </>
      }
    />
  );
}

interface Row {
  of: string;
  what: string;
  times: number;
}

function Totals({ history }: { history: History }) {
  const total = history.total;
  const rows: Row[] = FAILURES.flatMap((failing) => [...failures(total, failing)].map(([what, times]) => ({ of: failing.name, what, times })));
  const told = rows.filter(({ times }) => times > 0).sort((one, other) => other.times - one.times);
  if (told.length === 0) return <div className="empty">Nothing has failed.</div>;
  return (
    <Table<Row>
      label="Failures since the process began"
      rows={told}
      rowKey={({ of, what }) => `${of}/${what}`}
      columns={[
        { name: "Of", cell: ({ of }) => of },
        { name: "What", cell: ({ what }) => <code>{what}</code> },
        { name: "Times", number: true, cell: ({ times }) => count(times) },
      ]}
    />
  );
}
