import type { EventDetail } from "../api/types";

export interface Moment {
  at: string;
  what: string;
  /** `bad`: something failed. */
  tone: "" | "good" | "bad" | "wait";
  detail?: string;
}

/** What happened to an event, from its signing to the last thing done for it, in order of time. */
export function timeline(event: EventDetail): Moment[] {
  const moments: Moment[] = [];
  const add = (at: string | null, what: string, tone: Moment["tone"] = "", detail?: string) => {
    if (at !== null) moments.push({ at, what, tone, ...(detail !== undefined && { detail }) });
  };
  add(event.signed_at, "signed by its sender");
  add(event.received_at, `received from ${event.source}`, "", event.verdict === null ? undefined : `proof: ${event.verdict}`);
  add(event.stored_at, "stored");
  add(event.processed_at, "processed: what follows is written down", "good");
  for (const work of event.work) {
    const name = `${work.kind} ${work.object} (${work.route})`;
    add(work.created_at, `${name}: written down`);
    for (const one of work.tries ?? []) {
      const failed = one.error_code !== null;
      const status = one.status === null ? "" : `, status ${one.status}`;
      const outcome = failed ? one.error_code ?? "failed" : "done";
      add(one.at, `${name}: attempt ${one.attempt}, ${outcome}`, failed ? "bad" : "good", `${one.millis} ms${status}`);
    }
    if (work.state === "dead") add(work.finished_at, `${name}: dead`, "bad", work.error ?? work.error_code ?? undefined);
    else if (work.finished_at !== null) add(work.finished_at, `${name}: ${work.state}`, "good");
    else if (work.error_code !== null) add(work.due_at, `${name}: waits, is tried again`, "wait", work.error ?? work.error_code);
    else add(work.due_at, `${name}: due`, "wait");
  }
  return moments.sort((one, other) => Date.parse(one.at) - Date.parse(other.at));
}
