import { type KeyboardEvent, type ReactNode, useState } from "react";
import { Table } from "./parts";

/** A place on the time axis, with a value for each name; `null` where there is none. */
export interface Slot {
  name: string;
  values: readonly (number | null)[];
}

const WIDTH = 720;
const HEIGHT = 220;
/** A limit so far above all values is told instead of drawn: beside it nothing could be told apart. */
const LIMIT_IN_SIGHT = 4;

/**
 * Bars, each the sum of its values, or a line for each name. The numbers of a place are told when it is pointed at, or
 * by the arrow keys; the table has them all. Pointed at by moving: a chart that appears under a pointer at rest is
 * not, and takes nothing from the keyboard.
 */
export function Chart({ kind, label, names, slots, say, head, limit }: {
  kind: "bars" | "lines";
  label: string;
  names: readonly string[];
  slots: readonly Slot[];
  say: (value: number) => string;
  /** What stands above while no place is looked at. */
  head: ReactNode;
  limit?: { value: number; name: string } | undefined;
}) {
  const [over, setOver] = useState<number | null>(null);
  const shown = over === null ? undefined : slots[over];
  const present = slots.map(({ values }) => values.map((value) => value ?? 0));
  const most = Math.max(0, ...present.map((values) => (kind === "bars" ? total(values) : Math.max(0, ...values))));
  const drawn = limit && most > 0 && limit.value <= most * LIMIT_IN_SIGHT ? limit : undefined;
  const top = Math.max(most, drawn?.value ?? 0);
  const step = WIDTH / slots.length;
  const high = (value: number) => (top === 0 ? 0 : (value / top) * HEIGHT);

  const onKey = (event: KeyboardEvent) => {
    const last = slots.length - 1;
    const to: Record<string, number | null> = {
      ArrowLeft: Math.max(0, (over ?? slots.length) - 1),
      ArrowRight: Math.min(last, (over ?? -1) + 1),
      Home: 0,
      End: last,
      Escape: null,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    event.stopPropagation();
    setOver(to[event.key] ?? null);
  };

  return (
    <>
      <p className="total" role="status">
        {shown ? <Reading slot={shown} names={names} say={say} summed={kind === "bars"} /> : head}
      </p>
      <div className="plot" role="group" aria-label={`${label}; arrow keys go through it`} tabIndex={0} onKeyDown={onKey} onBlur={() => setOver(null)}>
        <span className="note">{top > 0 ? say(top) : ""}</span>
        <svg className="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${label}; the table below has the numbers`} onMouseLeave={() => setOver(null)}>
          {slots.map((_, at) => (
            <rect key={at} x={at * step} y="0" width={step} height={HEIGHT} className={at === over ? "hit over" : "hit"} onMouseMove={() => setOver(at)} />
          ))}
          <g className="marks">
            {kind === "bars"
              ? slots.map((slot, at) => <Bar key={at} x={at * step + step * 0.1} width={step * 0.8} values={slot.values} high={high} />)
              : names.map((name, at) => <Line key={name} at={at} values={slots.map(({ values }) => values[at] ?? null)} step={step} high={high} />)}
            {drawn && <line x1="0" x2={WIDTH} y1={HEIGHT - high(drawn.value)} y2={HEIGHT - high(drawn.value)} className="limit" />}
            <line x1="0" x2={WIDTH} y1={HEIGHT} y2={HEIGHT} className="axis" />
          </g>
        </svg>
        <span className="note ends">
          <span>{slots[0]?.name}</span>
          <span>{slots.at(-1)?.name}</span>
        </span>
      </div>
      <ul className="legend">
        {names.map((name, at) => (
          <li key={name}>
            <svg viewBox="0 0 10 10" aria-hidden="true">
              <rect width="10" height="10" className={`part-${at}`} />
            </svg>
            {name}
          </li>
        ))}
        {limit && <li>{drawn ? <span className="limit-mark" aria-hidden="true" /> : null}{limit.name}: {say(limit.value)}</li>}
      </ul>
      <details>
        <summary>As a table</summary>
        <Table
          label={label}
          rows={slots.filter(({ values }) => values.some((value) => value !== null && value > 0))}
          rowKey={(_, at) => String(at)}
          columns={[
            { name: "Time", cell: ({ name }) => name },
            ...names.map((name, at) => ({ name, number: true, cell: ({ values }: Slot) => told(values[at] ?? null, say) })),
            ...(kind === "bars" ? [{ name: "Total", number: true, cell: ({ values }: Slot) => say(total(values.map((value) => value ?? 0))) }] : []),
          ]}
        />
      </details>
    </>
  );
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function told(value: number | null, say: (value: number) => string): string {
  return value === null ? "–" : say(value);
}

function Reading({ slot, names, say, summed }: { slot: Slot; names: readonly string[]; say: (value: number) => string; summed: boolean }) {
  const parts = names.map((name, at) => ({ name, value: slot.values[at] ?? null })).filter(({ value }) => (summed ? value !== null && value > 0 : true));
  return (
    <>
      {slot.name}: {summed && <strong>{say(total(parts.map(({ value }) => value ?? 0)))}</strong>}{" "}
      {(!summed || names.length > 1) && parts.map(({ name, value }) => `${name} ${told(value, say)}`).join(", ")}
    </>
  );
}

function Bar({ x, width, values, high }: { x: number; width: number; values: Slot["values"]; high: (value: number) => number }) {
  let y = HEIGHT;
  return values.map((value, at) => {
    y -= high(value ?? 0);
    return <rect key={at} x={x} y={y} width={width} height={high(value ?? 0)} className={`part-${at}`} />;
  });
}

/** A line for each run of values; one value alone is a short one. */
function Line({ at, values, step, high }: { at: number; values: readonly (number | null)[]; step: number; high: (value: number) => number }) {
  const runs: string[][] = [[]];
  values.forEach((value, place) => {
    const x = (place + 0.5) * step;
    if (value === null) runs.push([]);
    else runs.at(-1)?.push(`${x},${HEIGHT - high(value)}`);
  });
  return runs
    .filter((run) => run.length > 0)
    .map((run) => {
      const [x = "0", y = "0"] = run[0]?.split(",") ?? [];
      const points = run.length > 1 ? run : [`${Number(x) - step / 3},${y}`, `${Number(x) + step / 3},${y}`];
      return <polyline key={run[0]} points={points.join(" ")} className={`line line-${at}`} />;
    });
}
