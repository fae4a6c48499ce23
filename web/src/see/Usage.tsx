import { useState } from "react";
import { useSigned } from "../api/session";
import type { Budget, Usage } from "../api/types";
import { count, money } from "../ui/format";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";
import { LOOK, Pane, Table } from "./parts";
import { type By, type Measure, type Sums, daysAgo, sums } from "./sums";

export function UsagePage() {
  const { api, operator } = useSigned();
  const [days, setDays] = useState(30);
  const [what, setWhat] = useState<Measure>("cost");
  const [by, setBy] = useState<By>("model");
  const [from, to] = [daysAgo(days - 1), daysAgo(0)];
  const loaded = useLoad(`${from}/${to}`, (signal) =>
    operator ? api.admin.get<Usage>("/usage", { from, to }, signal) : api.get<Usage>("/usage", { from, to }, signal),
    LOOK * 6,
  );
  return (
    <Pane title={operator ? "Usage and cost" : "Your usage and cost"}>
      <div className="filters">
        <Choice label="Time" value={String(days)} options={[["7", "7 days"], ["30", "30 days"], ["90", "90 days"]]} onChange={(value) => setDays(Number(value))} />
        <Choice label="Show" value={what} options={[["cost", "cost"], ["tokens", "tokens"], ["turns", "turns"]]} onChange={(value) => setWhat(value as Measure)} />
        <Choice label="By" value={by} options={[["model", "model"], ["owner", "owner"], ["deployment", "deployment"]]} onChange={(value) => setBy(value as By)} />
      </div>
      <Shown loaded={loaded} isEmpty={({ data }) => data.length === 0} empty="Nothing was used in this time. Talk first.">
        {({ data, budgets }) => (
          <>
            <Chart sums={sums(data, from, to, what, by)} what={what} by={by} />
            {budgets.length > 0 && <Budgets budgets={budgets} />}
          </>
        )}
      </Shown>
    </Pane>
  );
}

function Choice({ label, value, options, onChange }: { label: string; value: string; options: [string, string][]; onChange: (value: string) => void }) {
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => onChange(event.target.value)}>
        {options.map(([value, name]) => (
          <option key={value} value={value}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

const WIDTH = 720;
const HEIGHT = 220;
const SAY: Record<Measure, (value: number) => string> = { cost: money, tokens: count, turns: count };

/** Bars by day, each split by what is asked; the same as a table for those who read. */
function Chart({ sums: { days, names, total, most }, what, by }: { sums: Sums; what: Measure; by: By }) {
  const [over, setOver] = useState<number | null>(null);
  const step = WIDTH / days.length;
  const high = (value: number) => (most === 0 ? 0 : (value / most) * HEIGHT);
  const shown = over === null ? null : days[over];
  return (
    <>
      <p className="total" role="status">
        {shown ? (
          <>
            <strong>{SAY[what](shown.total)}</strong> {what} on {shown.day}
          </>
        ) : (
          <>
            <strong>{SAY[what](total)}</strong> {what} in {days.length} days
          </>
        )}
      </p>
      <svg className="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${what} by day and ${by}; the table below has the numbers`} onMouseLeave={() => setOver(null)}>
        <line x1="0" x2={WIDTH} y1={HEIGHT} y2={HEIGHT} className="axis" />
        {days.map(({ day, parts }, at) => {
          let top = HEIGHT;
          return (
            <g key={day} onMouseEnter={() => setOver(at)}>
              <rect x={at * step} y="0" width={step} height={HEIGHT} className="hit" />
              {parts.map((part, name) => {
                top -= high(part);
                return <rect key={name} x={at * step + step * 0.1} y={top} width={step * 0.8} height={high(part)} className={`part-${name}`} />;
              })}
            </g>
          );
        })}
      </svg>
      <ul className="legend">
        {names.map((name, at) => (
          <li key={name}>
            <svg viewBox="0 0 10 10" aria-hidden="true">
              <rect width="10" height="10" className={`part-${at}`} />
            </svg>
            {name}
          </li>
        ))}
      </ul>
      <details>
        <summary>As a table</summary>
        <Table
          label={`${what} by day`}
          rows={days.filter(({ total }) => total > 0)}
          rowKey={({ day }) => day}
          columns={[
            { name: "Day", cell: ({ day }) => day },
            ...names.map((name, at) => ({ name, number: true, cell: ({ parts }: { parts: number[] }) => SAY[what](parts[at] ?? 0) })),
            { name: "Total", number: true, cell: ({ total }) => SAY[what](total) },
          ]}
        />
      </details>
    </>
  );
}

function Budgets({ budgets }: { budgets: Budget[] }) {
  return (
    <>
      <h3>Today’s budgets</h3>
      <ul className="budgets">
        {budgets.map(({ scope, subject, limit_micros, spent_micros, held_micros }) => (
          <li key={`${scope}/${subject}`}>
            <span>
              {scope} {subject}
            </span>
            <meter min={0} max={limit_micros} high={limit_micros * 0.8} value={spent_micros + held_micros} aria-label={`${scope} ${subject}`} />
            <span className="note">
              {money(spent_micros)} spent, {money(held_micros)} set aside, of {money(limit_micros)}
            </span>
          </li>
        ))}
      </ul>
    </>
  );
}
