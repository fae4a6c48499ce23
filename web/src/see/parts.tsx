import { type ReactNode, useState } from "react";
import { useApi } from "../api/session";
import type { List } from "../api/types";
import { ago, exact } from "../ui/format";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";

/** How often lists of what runs are looked at again, in ms. */
export const LOOK = 5_000;

export function Pane({ title, children, actions }: { title: string; children: ReactNode; actions?: ReactNode }) {
  return (
    <section className="pane">
      <div className="pane-head">
        <h2>{title}</h2>
        {actions}
      </div>
      {children}
    </section>
  );
}

export function Time({ at }: { at: string | null }) {
  return at === null ? <span className="note">–</span> : (
    <time dateTime={at} title={exact(at)}>
      {ago(at)}
    </time>
  );
}

const TONES: Record<string, string> = {
  processed: "good", succeeded: "good", delivered: "good", replayed: "good", completed: "good", on: "good", closed: "good", "in force": "good", enabled: "good", ok: "good",
  dead: "bad", conflict: "bad", open: "bad", refuse: "bad", failed: "bad", away: "bad", revoked: "bad",
  held: "wait", pending: "wait", leased: "wait", queued: "wait", in_progress: "wait", hold: "wait", "half-open": "wait", disabled: "wait", ended: "wait",
};

/** A state, as a word first; the colour only repeats it. */
export function State({ state }: { state: string }) {
  return <span className={`state ${TONES[state] ?? ""}`}>{state.replace("_", " ")}</span>;
}

export interface Column<T> {
  name: string;
  cell: (row: T) => ReactNode;
  number?: boolean;
}

export function Table<T>({ label, rows, columns, rowKey }: {
  label: string;
  rows: T[];
  columns: Column<T>[];
  rowKey: (row: T, at: number) => string;
}) {
  // Roles by name: where rows stand as blocks, as on narrow screens, browsers would forget that this is a table.
  return (
    <div className="scroll rows" role="region" aria-label={label} tabIndex={0}>
      <table role="table">
        <thead role="rowgroup">
          <tr role="row">
            {columns.map(({ name, number }) => (
              <th key={name} scope="col" role="columnheader" className={number ? "number" : undefined}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((row, at) => (
            <tr key={rowKey(row, at)} role="row">
              {columns.map(({ name, cell, number }) => (
                <td key={name} role="cell" data-name={name} className={number ? "number" : undefined}>
                  {cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** One of a few, such as what a chart shows. */
export function Choice<T extends string>({ label, value, options, onChange }: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => onChange(event.target.value as T)}>
        {options.map(([value, name]) => (
          <option key={value} value={value}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

export interface Filter {
  name: string;
  label: string;
  /** One of these; without them any text. */
  options?: readonly string[];
}

/** A list of `/admin`: filters, live, page by page. `refresh` is called by what changes a row. */
export function Listing<T>({ path, title, filters, columns, empty, rowKey, below }: {
  path: string;
  title: string;
  filters: readonly Filter[];
  columns: (refresh: () => void) => Column<T>[];
  empty: string;
  rowKey: (row: T) => string;
  /** What else the page does. */
  below?: (refresh: () => void) => ReactNode;
}) {
  const api = useApi();
  const [values, setValues] = useState<Record<string, string>>({});
  const [pages, setPages] = useState<string[]>([]);
  const after = pages.at(-1);
  const query = { ...values, limit: 50, after };
  const loaded = useLoad(JSON.stringify([path, query]), (signal) => api.admin.get<List<T>>(path, query, signal), LOOK);
  const filtered = Object.values(values).some(Boolean);
  const set = (name: string, value: string) => {
    setPages([]);
    setValues({ ...values, [name]: value });
  };
  return (
    <Pane title={title}>
      <form className="filters" onSubmit={(event) => event.preventDefault()}>
        {filters.map(({ name, label, options }) => (
          <label key={name}>
            {label}
            {options ? (
              <select value={values[name] ?? ""} onChange={(event) => set(name, event.target.value)}>
                <option value="">any</option>
                {options.map((option) => (
                  <option key={option} value={option}>
                    {option === "*" ? "all" : option.replace("_", " ")}
                  </option>
                ))}
              </select>
            ) : (
              <input value={values[name] ?? ""} onChange={(event) => set(name, event.target.value)} />
            )}
          </label>
        ))}
      </form>
      <Shown loaded={loaded} isEmpty={({ data }) => data.length === 0} empty={filtered ? "Nothing matches the filters." : empty}>
        {({ data }) => <Table label={title} rows={data} columns={columns(loaded.again)} rowKey={rowKey} />}
      </Shown>
      {(after || loaded.data?.has_more) && (
        <div className="actions">
          {after && (
            <button type="button" onClick={() => setPages(pages.slice(0, -1))}>
              Newer
            </button>
          )}
          {loaded.data?.has_more && loaded.data.last_id && (
            <button type="button" onClick={() => setPages([...pages, loaded.data?.last_id ?? ""])}>
              Older
            </button>
          )}
        </div>
      )}
      {below?.(loaded.again)}
    </Pane>
  );
}

export function Facts({ facts }: { facts: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value ?? "–"}</dd>
        </div>
      ))}
    </dl>
  );
}
