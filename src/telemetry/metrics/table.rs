//! The table of metrics. Alerts and dashboards are made from it.

/// How a metric's values add up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Upper bounds of the buckets, in the metric's unit.
    Histogram(&'static [f64]),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    pub metric: Metric,
    pub name: &'static str,
    pub kind: Kind,
    /// UCUM, as OpenTelemetry asks: `s`, `{message}`.
    pub unit: &'static str,
    pub description: &'static str,
    /// Names of the attributes, in the order their values are given.
    pub attributes: &'static [&'static str],
}

/// Seconds, from a handler's microseconds to a callback's limit.
const SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 270.0];

/// The buckets that OpenTelemetry's GenAI conventions give, and one beyond for models that reason.
const GENERATION: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 300.0];
const TO_FIRST: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0];
const PER_CHUNK: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const PER_TOKEN: &[f64] = PER_CHUNK;
const TOKENS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];

macro_rules! metrics {
    ($($metric:ident, $name:literal, $kind:expr, $unit:literal, [$($attribute:literal),*], $description:literal;)*) => {
        /// A metric, by what it tells.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric {
            $(#[doc = $description] $metric,)*
        }

        /// Every metric, in the order of [`Metric`].
        pub const METRICS: &[Definition] = &[
            $(Definition {
                metric: Metric::$metric,
                name: $name,
                kind: $kind,
                unit: $unit,
                description: $description,
                attributes: &[$($attribute),*],
            },)*
        ];

        impl Metric {
            pub fn definition(self) -> &'static Definition {
                &METRICS[self as usize]
            }
        }
    };
}

metrics! {
    Invocations, "colloquy.invocations", Kind::Counter, "{invocation}", ["function", "outcome"],
        "Invocations of functions, by outcome";
    InvocationDuration, "colloquy.invocation.duration", Kind::Histogram(SECONDS), "s", ["function"],
        "Time from receipt to answer of an invocation";
    WebhookRequests, "colloquy.webhook.requests", Kind::Counter, "{request}", ["source", "outcome"],
        "Webhook requests, by source and outcome";
    WebhookDuration, "colloquy.webhook.duration", Kind::Histogram(SECONDS), "s", ["source"],
        "Time from receipt to answer of a webhook request";
    EventsProcessed, "colloquy.events.processed", Kind::Counter, "{event}", ["source", "fate"],
        "Events taken in, by source and fate";
    QueueDepth, "colloquy.queue.depth", Kind::Gauge, "{message}", ["queue"],
        "Messages in a queue, as the service estimates them";
    QueueOldestAge, "colloquy.queue.oldest.age", Kind::Gauge, "s", ["queue"],
        "Age of the oldest visible message of a queue";
    JobAttempts, "colloquy.job.attempts", Kind::Counter, "{attempt}", ["kind", "outcome"],
        "Attempts at jobs, by kind and outcome";
    JobDuration, "colloquy.job.duration", Kind::Histogram(SECONDS), "s", ["kind"],
        "Time of one attempt at a job";
    CallbackAttempts, "colloquy.callback.attempts", Kind::Counter, "{attempt}", ["target", "outcome"],
        "Attempts at callbacks, by target and outcome";
    CallbackDuration, "colloquy.callback.duration", Kind::Histogram(SECONDS), "s", ["target"],
        "Time of one attempt at a callback";
    DeadLetters, "colloquy.dead_letters", Kind::Counter, "{dead_letter}", ["subject", "reason"],
        "Work given up, by what it was and why";
    DeadLettersOpen, "colloquy.dead_letters.open", Kind::Gauge, "{dead_letter}", ["subject"],
        "Dead letters that nobody has settled";
    RotationsOpen, "colloquy.rotations.open", Kind::Gauge, "{rotation}", ["urgency"],
        "Secrets that have to be replaced: those that will expire, those that have";
    DueRows, "colloquy.due.rows", Kind::Gauge, "{row}", ["subject"],
        "Rows due and unclaimed";
    DueOldestAge, "colloquy.due.oldest.age", Kind::Gauge, "s", ["subject"],
        "How long the oldest due and unclaimed row has been due";
    DatabasePoolConnections, "colloquy.database.pool.connections", Kind::Gauge, "{connection}", ["state"],
        "Connections of this process to the database, by state";
    DatabasePoolUtilization, "colloquy.database.pool.utilization", Kind::Gauge, "1", [],
        "Share of the connections this process may hold that are in use";
    DatabasePoolLimit, "colloquy.database.pool.limit", Kind::Gauge, "{connection}", [],
        "Most connections this process may hold";
    DatabasePoolWaiting, "colloquy.database.pool.waiting", Kind::Gauge, "{caller}", [],
        "Callers waiting for a database connection";
    DatabaseErrors, "colloquy.database.errors", Kind::Counter, "{error}", ["class"],
        "Failed database calls, by class";
    SchemaVersion, "colloquy.database.schema.version", Kind::Gauge, "{version}", [],
        "Version of the schema in the database";
    MigrationsPending, "colloquy.database.migrations.pending", Kind::Gauge, "{migration}", [],
        "Migrations of this build that the database has not seen";
    Swept, "colloquy.maintain.swept", Kind::Counter, "{item}", ["sweep"],
        "Rows and messages that upkeep took, by sweep";
    Requests, "http.server.request.duration", Kind::Histogram(SECONDS), "s", ["route", "status"],
        "Time from a request to the conversation server until its answer began";
    ConnectionsOpen, "colloquy.connections.open", Kind::Gauge, "{connection}", [],
        "Connections to the conversation server that are open";
    ConnectionsLimit, "colloquy.connections.limit", Kind::Gauge, "{connection}", [],
        "Most connections the conversation server takes";
    ConnectionsUtilization, "colloquy.connections.utilization", Kind::Gauge, "1", [],
        "Share of the connections the conversation server takes that are open";
    ConnectionsRefused, "colloquy.connections.refused", Kind::Counter, "{connection}", [],
        "Connections refused because there were too many";
    TurnsOpen, "colloquy.turns.open", Kind::Gauge, "{turn}", [],
        "Turns in flight in this process";
    TurnsEnded, "colloquy.turns.ended", Kind::Counter, "{turn}", ["status", "reason"],
        "Turns that ended, by status and why";
    TurnsTakenOver, "colloquy.turns.taken_over", Kind::Counter, "{turn}", ["outcome"],
        "Turns of dead processes that this one took over";
    LogAppend, "colloquy.log.append.duration", Kind::Histogram(SECONDS), "s", [],
        "Time of one grouped append to the logs of turns";
    LogStalled, "colloquy.log.stalled", Kind::Counter, "{append}", [],
        "Appends that took longer than LOG_PATIENCE, so that streams went on unlogged";
    AccessRefused, "colloquy.access.refused", Kind::Counter, "{request}", ["code"],
        "Callers refused, by reason";
    GenAiTokens, "gen_ai.client.token.usage", Kind::Histogram(TOKENS), "{token}",
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type"],
        "Tokens of one call to a model, as its provider counts them";
    GenAiDuration, "gen_ai.client.operation.duration", Kind::Histogram(GENERATION), "s",
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type"],
        "Time of one call to a model, to the end of its answer";
    GenAiFirstChunk, "gen_ai.client.operation.time_to_first_chunk", Kind::Histogram(TO_FIRST), "s",
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"],
        "Time of one call to a model, to the first piece of its answer";
    GenAiPerChunk, "gen_ai.client.operation.time_per_output_chunk", Kind::Histogram(PER_CHUNK), "s",
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"],
        "Time between two pieces of an answer, its mean over one answer";
    GenAiServerDuration, "gen_ai.server.request.duration", Kind::Histogram(GENERATION), "s",
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type"],
        "Time of one turn, from its request to its end";
    GenAiServerFirstToken, "gen_ai.server.time_to_first_token", Kind::Histogram(TO_FIRST), "s",
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"],
        "Time of one turn, from its request until the first piece of its answer was shown";
    GenAiServerPerToken, "gen_ai.server.time_per_output_token", Kind::Histogram(PER_TOKEN), "s",
        ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"],
        "Time between two tokens of a turn after the first, its mean over one turn";
    LlmAttempts, "colloquy.llm.attempts", Kind::Counter, "{attempt}", ["deployment", "outcome"],
        "Calls to model deployments, by how they ended";
    LlmRetries, "colloquy.llm.retries", Kind::Counter, "{attempt}", ["deployment", "reason"],
        "Calls to model deployments that followed a failed one, by the reason";
    LlmBreakerOpen, "colloquy.llm.breaker.open", Kind::Gauge, "{breaker}", ["deployment"],
        "1 while a model deployment is left alone after failures";
    LlmBreakerOpened, "colloquy.llm.breaker.opened", Kind::Counter, "{event}", ["deployment"],
        "How often a model deployment was left alone after failures";
    LlmQuotaWait, "colloquy.llm.quota.wait", Kind::Histogram(SECONDS), "s", ["deployment"],
        "Waits for our own limits of a model deployment";
    BudgetUsed, "colloquy.budget.used", Kind::Gauge, "1", [],
        "Share of the day's total budget that is spent";
    BudgetPassed, "colloquy.budget.passed", Kind::Counter, "{budget}", ["scope", "percent"],
        "Budgets of which 80 or 100 percent were spent: each once a day, by the process that noticed it first";
    BudgetRefused, "colloquy.budget.refused", Kind::Counter, "{turn}", ["code"],
        "Turns refused because of a budget, by reason";
    Cost, "colloquy.spend.cost", Kind::Counter, "{micro}", ["deployment"],
        "Cost of calls to models, in millionths of the currency that prices are in";
    UsageRows, "colloquy.usage.rows", Kind::Counter, "{row}", ["fate"],
        "Usage rows that did not go to the database directly: spooled to the queue, or lost";
    RateLimited, "colloquy.rate_limited", Kind::Counter, "{request}", ["limit"],
        "Requests refused by a rate limit, by the limit";
    ExternalErrors, "colloquy.external.errors", Kind::Counter, "{error}", ["system", "name", "code"],
        "Calls to systems of others that failed by their fault or on the way: models, consumers, SailPoint, signing keys";
    ExternalFailing, "colloquy.external.failing", Kind::Gauge, "{call}", ["system", "name"],
        "How many calls in a row from this process to one such system failed";
    RuntimeUtilization, "colloquy.runtime.utilization", Kind::Gauge, "1", [],
        "Share of the time that the threads of this process which run tasks were busy";
    CoordinationCalls, "colloquy.coordination.calls", Kind::Counter, "{call}", ["call", "outcome"],
        "Calls to what instances share (Redis), by outcome";
    CoordinationConnected, "colloquy.coordination.connected", Kind::Gauge, "1", [],
        "Whether what instances share can be reached (1) or this instance is on its own (0)";
}

/// The table of metrics in `docs/logging.md`.
pub fn metrics_markdown() -> String {
    let mut page = String::from("| metric | kind | unit | attributes | meaning |\n|---|---|---|---|---|\n");
    for definition in METRICS {
        let kind = match definition.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let attributes =
            definition.attributes.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        page.push_str(&format!(
            "| `{}` | {kind} | `{}` | {attributes} | {} |\n",
            definition.name, definition.unit, definition.description
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_the_table() {
        crate::testing::assert_tables(
            "docs/logging.md",
            &[("metrics", metrics_markdown())],
            "metrics::table",
        );
    }
}
