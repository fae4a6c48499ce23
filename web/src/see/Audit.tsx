import type { AuditRow } from "../api/types";
import { Listing, Time } from "./parts";

export function Audit() {
  return (
    <Listing<AuditRow>
      path="/audit"
      title="Audit"
      rowKey={({ id }) => id}
      empty="Nobody has changed anything yet."
      filters={[
        { name: "action", label: "Action (key, key.create …)" },
        { name: "actor", label: "Who" },
        { name: "subject", label: "To what" },
      ]}
      columns={() => [
        { name: "When", cell: (row) => <Time at={row.at} /> },
        { name: "Who", cell: (row) => row.actor },
        { name: "What", cell: (row) => <code>{row.action}</code> },
        { name: "To what", cell: (row) => row.subject },
        { name: "Why", cell: (row) => (typeof row.detail?.["reason"] === "string" ? row.detail["reason"] : "–") },
        { name: "More", cell: (row) => <Detail detail={row.detail} /> },
      ]}
    />
  );
}

function Detail({ detail }: { detail: AuditRow["detail"] }) {
  const { reason: _, ...rest } = detail ?? {};
  if (Object.keys(rest).length === 0) return "–";
  return (
    <details>
      <summary>{Object.keys(rest).join(", ")}</summary>
      <pre className="detail">{JSON.stringify(rest, null, 2)}</pre>
    </details>
  );
}
