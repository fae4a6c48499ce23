/** What the server sends, as docs/openapi.json has it; only what the console reads. */

export interface List<T> {
  data: T[];
  has_more: boolean;
  last_id: string | null;
}

export interface Model {
  id: string;
  description: string | null;
  context_window: number;
  /** Micro-units for a million tokens. */
  price: { input: number; cached_input: number; cache_write: number; output: number };
  embeddings: boolean;
}

export interface Conversation {
  id: string;
  title: string | null;
  /** Unix seconds. */
  created_at: number;
  updated_at: number;
  owner?: string;
  access?: "read" | "write";
}

export interface Part {
  type: string;
  text?: string;
  refusal?: string;
  image_url?: string | { url: string };
  filename?: string;
}

/** An item of a conversation or of an answer. */
export interface Item {
  id?: string;
  type: string;
  role?: string;
  status?: string;
  content?: Part[] | string;
  summary?: Part[];
  name?: string;
  call_id?: string;
  arguments?: string;
  output?: string | Part[];
}

export interface Tokens {
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  input_tokens_details?: { cached_tokens?: number };
  output_tokens_details?: { reasoning_tokens?: number };
}

export type ResponseStatus = "queued" | "in_progress" | "completed" | "incomplete" | "failed" | "cancelled";

export interface ResponseBody {
  id: string;
  status: ResponseStatus;
  model: string;
  output: Item[];
  usage: Tokens | null;
  error: { code?: string; message?: string } | null;
  incomplete_details?: { reason?: string } | null;
}

/** An event of a stream. Its fields depend on `type`. */
export interface StreamEvent {
  type: string;
  sequence_number: number;
  response?: ResponseBody;
  item?: Item;
  part?: Part;
  output_index?: number;
  content_index?: number;
  summary_index?: number;
  delta?: string;
  text?: string;
  refusal?: string;
  arguments?: string;
  message?: string;
  code?: string | null;
  error?: { code?: string | null; message?: string };
}

/** Times of operators' routes are RFC 3339. */
export interface EventLine {
  id: string;
  source: string;
  type: string;
  key: string;
  state: "held" | "processed" | "conflict";
  received_at: string;
  processed_at: string | null;
  run: number;
  work_done: number;
  work: number;
  dead: number;
}

export interface Try {
  attempt: number;
  at: string;
  millis: number;
  status: number | null;
  error_code: string | null;
}

export interface Work {
  kind: "job" | "callback";
  id: string;
  event: string | null;
  route: string;
  /** A job's kind, a callback's target. */
  object: string;
  run: number;
  state: "pending" | "leased" | "succeeded" | "delivered" | "dead";
  attempts: number;
  created_at: string;
  due_at: string;
  finished_at: string | null;
  error_code: string | null;
  error: string | null;
  tries: Try[] | null;
}

export interface EventDetail extends Omit<EventLine, "work" | "work_done" | "dead"> {
  delivery: string;
  subject: string | null;
  signed_at: string | null;
  stored_at: string | null;
  verdict: string | null;
  request_id: string | null;
  trace_id: string | null;
  body_bytes: number | null;
  conflicts_with: string | null;
  work: Work[];
}

export interface DeadLetter {
  id: string;
  kind: "job" | "callback" | "message";
  subject: string;
  source: string | null;
  event: string | null;
  route: string | null;
  queue: string | null;
  reason_code: string;
  reason: string;
  attempts: number;
  state: "open" | "replayed" | "discarded";
  created_at: string;
  resolved_at: string | null;
}

export type SwitchKind = "source" | "route" | "model" | "deployment" | "owner" | "target" | "feature";

export interface Switch {
  kind: SwitchKind;
  name: string;
  /** Of a feature, absent: it is on. */
  stop?: "hold" | "refuse";
  by: string;
  at: string;
  reason?: string;
  until?: string;
  in_force: boolean;
}

export interface Switches {
  data: Switch[];
  features: { feature: string; on: boolean; configured: boolean }[];
}

export interface RunningTurn {
  id: string;
  state: "queued" | "in_progress";
  owner: string;
  model: string;
  background: boolean;
  conversation: string | null;
  created_at: string;
  age_seconds: number;
  holder: string | null;
  restarts: number;
  cancel_requested_at: string | null;
  here?: { viewers: number; chunks: number };
}

export interface UsageDay {
  day: string;
  owner: string;
  model: string;
  deployment: string;
  provider: string;
  api_key: string | null;
  attempts: number;
  turns: number;
  input_tokens: number;
  output_tokens: number;
  cost_micros: number;
  estimated_cost_micros: number;
}

export interface Budget {
  scope: "total" | "owner" | "key";
  subject: string;
  limit_micros: number;
  spent_micros: number;
  held_micros: number;
  free_micros: number;
}

export interface Usage {
  from: string;
  to: string;
  data: UsageDay[];
  last_id: string | null;
  has_more: boolean;
  budgets: Budget[];
}

export interface Queue {
  queue: string;
  messages: number | null;
  oldest_seconds: number | null;
  error: string | null;
}

/** Rows of jobs or callbacks that wait. */
export interface Backlog {
  kind: "job" | "callback";
  due: number;
  scheduled: number;
  leased: number;
  target_disabled: number;
  oldest_due_seconds: number;
  open_dead_letters: number;
}

export interface Queues {
  /** `null`: no storage is set. */
  queues: Queue[] | null;
  work: Backlog[];
}

export interface Target {
  target: string;
  state: "enabled" | "disabled";
  at?: string;
  reason?: string;
}

/** `/health/status` of the process that answers. */
export interface Status {
  version: string;
  environment: string;
  time: string;
  instance: string;
  stopping: boolean;
  checks: { name: string; ok: boolean; detail?: string }[];
  connections: { open: number; limit: number };
  turns: unknown[];
  database_pool: { max_size: number; size: number; available: number; waiting: number };
  deployments: { name: string; provider: string; breaker: "closed" | "open" | "half-open" }[];
  budgets: { tracked: boolean; rows: { waiting: number; written: number; spooled: number; lost: number } };
  shared: boolean;
}

export interface Migration {
  version: number;
  name: string;
  applied_at?: string | null;
  transactional?: boolean;
}

export interface Migrations {
  current: number;
  latest: number;
  applied: Migration[];
  pending: Migration[];
  unknown: number[];
  problem: string | null;
}

export interface AuditRow {
  id: string;
  at: string;
  actor: string;
  action: string;
  subject: string;
  detail: Record<string, unknown> | null;
}

export interface Key {
  id: string;
  name: string;
  owner: string;
  scopes: string[];
  limits: Record<string, unknown>;
  created_at: string;
  created_by: string;
  expires_at: string | null;
  revoked_at: string | null;
  replaced_by: string | null;
  last_used_day: string | null;
}

/** A key that was just made, told this once. */
export interface NewKey extends Key {
  key: string;
}

export interface Grant {
  conversation: string;
  owner: string;
  grantee: string;
  access: "read" | "write";
  created_by: string;
  created_at: string;
}
