import { useState } from "react";
import { useSigned } from "../api/session";
import type { Budget, Usage } from "../api/types";
import { count, money } from "../ui/format";
import { Shown } from "../ui/States";
import { useLoad } from "../ui/useLoad";
import { Chart } from "./Chart";
import { Choice, LOOK, Pane } from "./parts";
import { type By, type Measure, daysAgo, sums } from "./sums";
import { whole } from "./whole";

const SAY: Record<Measure, (value: number) => string> = { cost: money, tokens: count, turns: count };
const MEASURES = [["cost", "cost"], ["tokens", "tokens"], ["turns", "turns"]] as const;
const BYS = [["model", "model"], ["owner", "owner"], ["route", "route of events"], ["api_key", "key"], ["deployment", "deployment"], ["provider", "provider"]] as const;

export function UsagePage() {
  const { api, operator } = useSigned();
  const [days, setDays] = useState("30");
  const [what, setWhat] = useState<Measure>("cost");
  const [by, setBy] = useState<By>("model");
  const [from, to] = [daysAgo(Number(days) - 1), daysAgo(0)];
  const loaded = useLoad(`${from}/${to}`, (signal) =>
    whole((query) => (operator ? api.admin.get<Usage>("/usage", query, signal) : api.get<Usage>("/usage", query, signal)), { from, to }),
    LOOK * 6,
  );
  return (
    <Pane title={operator ? "Usage and cost" : "Your usage and cost"}>
      <div className="filters">
        <Choice label="Time" value={days} options={[["7", "7 days"], ["30", "30 days"], ["90", "90 days"]]} onChange={setDays} />
        <Choice<Measure> label="Show" value={what} options={MEASURES} onChange={setWhat} />
        <Choice<By> label="By" value={by} options={BYS} onChange={setBy} />
      </div>
      <Shown loaded={loaded} isEmpty={({ data }) => data.length === 0} empty="Nothing was used in this time. Talk first.">
        {({ data, budgets }) => {
          const { days, names, total } = sums(data, from, to, what, by);
          const budget = what === "cost" ? wholeBudget(budgets, operator) : undefined;
          return (
            <>
              <Chart
                kind="bars"
                label={`${what} by day and ${by === "api_key" ? "key" : by}`}
                names={names}
                slots={days.map(({ day, parts }) => ({ name: day, values: parts }))}
                say={SAY[what]}
                limit={budget && { value: budget.limit_micros, name: "Budget of a day" }}
                head={
                  <>
                    <strong>{SAY[what](total)}</strong> {what} in {days.length} days
                  </>
                }
              />
              {budgets.length > 0 && <Budgets budgets={budgets} />}
            </>
          );
        }}
      </Shown>
    </Pane>
  );
}

/** The budget that all the bars count against: that of everybody, or one's own. */
function wholeBudget(budgets: readonly Budget[], operator: boolean): Budget | undefined {
  return budgets.find(({ scope }) => scope === (operator ? "total" : "owner"));
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
