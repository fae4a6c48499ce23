"""How cost grows with what grows: a conversation's length, rows of events and usage, processes, routes, keys."""

import hashlib
import json
import re
import secrets
import time
import urllib.request
from contextlib import ExitStack

import processes

from . import plots
from .intake import ROUTE, Application
from .measuring import Bench, Part, Spread, Sql, cpu_of, say, tree
from .report import Report, number, spread

MODEL = "m"


def run(bench: Bench) -> Report:
    report = Report(bench, "growth", "Growth")
    report.text("What must not grow, beside what grows. CPU is that of the part named, per turn, event or request; times on the clock are of one caller that waits for each answer.")
    conversations(bench, report)
    rows(bench, report)
    several(bench, report)
    routes(bench, report)
    keys(bench, report)
    return report


class Server:
    """Conversation servers over one database, all on the subject's core, with the stand-in for a provider behind them."""

    def __init__(self, bench: Bench, stack: ExitStack, database: str, count: int = 1, keys: list[str] | None = None, pieces: int = 1):
        self.bench, self.services = bench, bench.services
        provider = bench.stand_in("provider", stack)
        config = bench.directory / "server.toml"
        # All pieces at once. A small window, so that a long conversation does not fit into it.
        config.write_text(f'[deployments.{MODEL}]\nprovider = "openai"\nurl = "{provider}/{pieces}/0"\nauth = "none"\nrequests_per_minute = 0\ntokens_per_minute = 0\n'
                          f'context_window = 8000\nmax_output_tokens = 500\nprice = {{ input = "1.00", output = "4.00" }}\n\n[models.{MODEL}]\ndeployments = ["{MODEL}"]\n')  # fmt: skip
        self.key = (keys or ["clq_" + secrets.token_urlsafe(32)])[-1]
        known = [{"name": f"k{nth}", "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": [] if keys else ["operator"], "owner": "o"} for nth, key in enumerate(keys or [self.key])]
        environment = bench.environment(self.services.storage(), self.services, database, COLLOQUY_CONFIG=str(config), AUTH_API_KEYS=json.dumps(known, separators=(",", ":")), APP_LOG_LEVEL="warn")
        self.parts, self.urls = [], []
        for port in processes.free_ports(count):
            part = stack.enter_context(Part("conversation-server", [bench.server], bench.subject_core, env=environment | {"PORT": str(port)}, cwd=bench.directory, log=bench.directory / "server.log"))
            part.until_answers(port, "/health/ready")
            self.parts.append(part)
            self.urls.append(f"http://127.0.0.1:{port}")

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        request = urllib.request.Request(self.urls[0] + path, method=method, data=json.dumps(body).encode() if body is not None else None,
                                         headers={"authorization": f"Bearer {self.key}", "content-type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def load(self, path: str, body: dict | None = None, connections: int = 1, **options) -> dict:
        """As Bench.load, with CPU µs a request of the servers and of PostgreSQL."""
        if body is not None:
            file = self.bench.directory / "body.json"
            file.write_text(json.dumps(body))
            options["body"] = file
        database = tree(self.services.postmaster())
        before = sum(part.cpu() for part in self.parts), cpu_of(database)
        got = self.bench.load([url + path for url in self.urls], connections=connections, method="GET" if body is None else "POST", strict=True,
                              header=f"authorization: Bearer {self.key}", **options)  # fmt: skip
        after = sum(part.cpu() for part in self.parts), cpu_of(tree(self.services.postmaster()))
        each = 1e6 / got["requests"]
        return {"server_us": (after[0] - before[0]) * each, "postgres_us": (after[1] - before[1]) * each, "p50_ms": got["p50_us"] / 1e3, "p99_ms": got["p99_us"] / 1e3,
                "per_second": got["requests"] / got["seconds"]}  # fmt: skip


def turn(**more) -> dict:
    return {"model": MODEL, "input": "Please tell me about the sea. " * 30, **more}


def tables(report: Report, heading: str, measured: list[dict], what: str, columns: dict[str, str]) -> None:
    """A line for each size: medians and spreads over the rounds, and first how much it grew from the smallest."""
    sizes = list(dict.fromkeys(row[what] for row in measured))
    of = lambda size, column: Spread.of(row[column] for row in measured if row[what] == size)
    lines = []
    for size in sizes:
        first = of(sizes[0], next(iter(columns))).median or 1
        lines.append([f"{size:,}", f"**{of(size, next(iter(columns))).median / first:.2f} ×**", *(spread(of(size, column)) for column in columns)])
    report.table([heading, "against the first", *columns.values()], lines)


# -- a conversation's length -----------------------------------------------------------------------------------------


def conversations(bench: Bench, report: Report) -> None:
    lengths, rounds, turns = bench.some([10, 100, 1000, 10_000], [10, 100]), bench.some(5, 1), bench.some(100, 5)
    with ExitStack() as stack:
        server = Server(bench, stack, bench.database("conversations"))
        sql = stack.enter_context(Sql(server.services.url("conversations", pooled=False)))
        # One for each round: what the turns add to it must not become what is measured.
        ids = {(length, nth): conversation(server, sql, length) for length in lengths for nth in range(rounds)}
        sql.rows("ANALYZE")
        server.load("/v1/responses", turn(store=False), requests=turns)
        measured = []
        for nth in range(rounds):
            for length in lengths:
                got = server.load("/v1/responses", turn(conversation=ids[length, nth], truncation="auto"), requests=turns)
                measured.append({"items": length, "round": nth, **got})
        say("conversations are done")
    report.heading("Length of a conversation")
    report.text(f"A stored turn in a conversation that already has so many items, cut to a window of 8,000 tokens (`truncation: auto`); {rounds} interleaved rounds of {turns} turns, "
                f"each with a conversation of its own, which is {2 * turns:,} items longer by its end. Each item is of some 230 tokens, so a window holds some 30 of them.")  # fmt: skip
    tables(report, "items before", measured, "items", {"server_us": "server, CPU µs a turn", "postgres_us": "PostgreSQL, CPU µs a turn", "p50_ms": "p50 ms", "p99_ms": "p99 ms"})
    report.plot("conversation", curve("CPU µs of a turn by the items before it", "items", measured, "items", {"server_us": "server", "postgres_us": "PostgreSQL"}), "Cost by length")
    report.data(measured, "conversation")


def conversation(server: Server, sql: Sql, length: int) -> str:
    """A conversation with so many items, copies of one that was really said."""
    identity = server.ask("POST", "/v1/conversations", {})["id"]
    server.ask("POST", "/v1/responses", turn(conversation=identity))
    bare = re.sub("^[a-z]+_", "", identity)
    thread = sql.rows(f"SELECT thread_id FROM conversations WHERE id = '{bare}'")[0][0]
    sql.rows(f"""
        WITH said AS (SELECT * FROM items WHERE thread_id = '{thread}' ORDER BY position LIMIT 1),
             head AS (SELECT head_position, head_tokens FROM threads WHERE id = '{thread}'),
             made AS (INSERT INTO items (thread_id, position, id, kind, role, response_id, tokens, tokens_before, data)
                      SELECT '{thread}', head_position + nth, gen_random_uuid(), kind, role, response_id, tokens, head_tokens + tokens * (nth - 1), data
                      FROM said, head, generate_series(1, {length - 2}) AS nth)
        UPDATE threads SET head_position = head_position + {length - 2}, head_tokens = head_tokens + (SELECT tokens FROM said) * {length - 2} WHERE id = '{thread}'""")
    return identity


def curve(title: str, x_name: str, measured: list[dict], x: str, columns: dict[str, str]) -> str:
    sizes = list(dict.fromkeys(row[x] for row in measured))
    return plots.lines(title, x_name, {name: [(size, Spread.of(row[column] for row in measured if row[x] == size).median) for size in sizes] for column, name in columns.items()}, logarithmic=True)


# -- rows ------------------------------------------------------------------------------------------------------------

# A UUIDv7 of a time within the last twenty days, later ones for larger numbers.
AT = "now() - interval '20 days' + interval '20 days' * nth / {total}"
ID = "(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5('{what}' || nth), 1, 3) || '8' || substr(md5('{what}' || nth), 4, 15))::uuid"


def fill(sql: Sql, first: int, last: int, total: int) -> None:
    """Deliveries, events with their keys, and rows of usage, number `first` to `last` of `total`."""
    made = f"FROM (SELECT nth, {AT.format(total=total)} AS at FROM generate_series({first}, {last}) AS nth) AS made"
    event, delivery = ID.format(what="event"), ID.format(what="delivery")
    source = "(ARRAY['stripe', 'github', 'crm'])[1 + nth % 3]"
    sql.rows(f"""INSERT INTO deliveries (id, source, request_id, received_at, stored_at, verdict, headers, body_bytes, event_count)
                 SELECT {delivery}, {source}, gen_random_uuid(), at, at, 'stripe', '[["user-agent", "somebody"]]', 2000, 1 {made}""")
    sql.rows(f"""INSERT INTO events (id, delivery_id, position, source, type, key, fingerprint, received_at, processed_at, state, payload)
                 SELECT {event}, {delivery}, 0, {source}, 'invoice.' || nth % 20, 'filled_' || nth, decode(md5(nth::text), 'hex'), at, at, 'processed', convert_to(repeat('x', 400), 'UTF8') {made}""")
    sql.rows(f"""INSERT INTO event_keys (source, key, event_id, fingerprint, received_at, expires_at)
                 SELECT {source}, 'filled_' || nth, {event}, decode(md5(nth::text), 'hex'), at, at + interval '400 days' {made}""")
    sql.rows(f"""INSERT INTO usage (id, owner, api_key, model, deployment, provider, state, reason, input_tokens, output_tokens, cost_micros, day, created_at, settled_at)
                 SELECT {ID.format(what="usage")}, CASE WHEN nth <= 1000 THEN 'asked' ELSE 'other-' || nth % 100 END, 'key-' || nth % 500, 'small', 'small', 'openai', 'settled', 'completed',
                        250, 50, 450, (at AT TIME ZONE 'UTC')::date, at, at
                 FROM (SELECT nth, now() - interval '20 days' * (nth * 7919 % 1000) / 1000 AS at FROM generate_series({first}, {last}) AS nth) AS made""")


# What the console asks for, on pages that an operator opens.
PAGES = {
    "newest events": "/admin/events?limit=50", "events of a type": "/admin/events?limit=50&source=stripe&type=invoice.7", "an event by its key": "/admin/events?source=stripe&key=filled_3",
    "one owner's usage, a week": "/admin/usage?owner=asked&from={week}&to={today}",
}  # fmt: skip


def rows(bench: Bench, report: Report) -> None:
    most = bench.rows or bench.some(1_000_000, 2_000)
    sizes = [size for size in bench.some([10_000, 100_000, 1_000_000, 10_000_000], [1_000, 2_000]) if size <= most] or [most]
    events, asked = bench.some(500, 10), bench.some(200, 5)
    measured, sent, filled = [], 10**14, 0
    week, today = (time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * 86400)) for days in (6, 0))
    with ExitStack() as stack:
        app = Application(bench, stack, bench.database("rows"), ROUTE)
        server = Server(bench, stack, "rows")
        app.sql.rows("SELECT ensure_month_partition(parent, now() - interval '20 days') FROM unnest(ARRAY['deliveries', 'events', 'usage']) AS parent")
        app.send(events, sent)
        for size in sizes:
            while filled < size:
                upto = min(filled + 250_000, size)
                fill(app.sql, filled + 1, upto, sizes[-1])
                filled = upto
            # Each size as it is found in production: with its statistics, and nothing of the filling left to be written.
            app.sql.rows("VACUUM ANALYZE")
            app.sql.rows("CHECKPOINT")
            say(f"{size:,} rows are there")
            sent += events
            fresh = app.send(events, sent)
            again = app.send_again(events, sent)
            line = {"rows": size, "event_postgres_us": fresh["cpu"]["PostgreSQL"] * 1e6 / events, "event_handler_us": fresh["cpu"]["function-handlers"] * 1e6 / events,
                    "again_postgres_us": again["cpu"]["PostgreSQL"] * 1e6 / events}  # fmt: skip
            for name, path in PAGES.items():
                got = server.load(path.format(week=week, today=today), requests=asked)
                line |= {f"{name}, p50 ms": got["p50_ms"], f"{name}, p99 ms": got["p99_ms"]}
            got = server.load("/v1/responses", turn(), requests=asked)
            line |= {"a stored turn, p50 ms": got["p50_ms"], "a stored turn, p99 ms": got["p99_ms"], "turn_postgres_us": got["postgres_us"]}
            measured.append(line)
    report.heading("Rows of events and usage")
    report.text(f"So many events with their deliveries and keys, and as many rows of usage, of the last twenty days; 1,000 of the latter are the asked owner's at every size. {events} new events each, then the same again, which are duplicates; {asked} requests for each page.")
    columns = [name for name in measured[0] if name != "rows"]
    words = {"event_postgres_us": "a new event: PostgreSQL, CPU µs", "event_handler_us": "a new event: function-handlers, CPU µs", "again_postgres_us": "a duplicate: PostgreSQL, CPU µs",
             "turn_postgres_us": "a stored turn: PostgreSQL, CPU µs"}  # fmt: skip
    report.table(["", *(f"{line['rows']:,}" for line in measured), "last against first"], [
        [words.get(name, name), *(number(line[name]) for line in measured), f"**{measured[-1][name] / (measured[0][name] or 1):.2f} ×**"] for name in columns])  # fmt: skip
    p50 = {name: f"{name}, p50 ms" for name in PAGES}
    report.plot("rows", plots.lines("p50 ms by rows", "rows", {name: [(line["rows"], line[column]) for line in measured] for name, column in p50.items()}, logarithmic=True), "Pages by rows")
    report.data(measured, "rows")


# -- processes, routes, keys -----------------------------------------------------------------------------------------


def several(bench: Bench, report: Report) -> None:
    counts, rounds, turns = bench.some([1, 2, 4], [1, 2]), bench.some(5, 1), bench.some(1000, 8)
    measured = []
    for count in counts:
        with ExitStack() as stack:
            server = Server(bench, stack, bench.database(f"processes_{count}"), count)
            server.load("/v1/responses", turn(), connections=16, requests=turns)
            for nth in range(rounds):
                measured.append({"processes": count, "round": nth, **server.load("/v1/responses", turn(), connections=16, requests=turns)})
    report.heading("Server processes")
    report.text(f"Stored turns over 16 connections, dealt out to so many servers on one database, {rounds} rounds of {turns:,}. All of them share one core here, so turns/s cannot grow with them; "
                "that CPU a turn does not grow either is what lets a machine of its own for each bring its own turns/s. The servers' CPU holds what they do when idle, for each of them.")  # fmt: skip
    tables(report, "processes", measured, "processes", {"server_us": "servers, CPU µs a turn", "postgres_us": "PostgreSQL, CPU µs a turn", "per_second": "turns/s", "p50_ms": "p50 ms"})
    report.data(measured, "processes")


def routes(bench: Bench, report: Report) -> None:
    counts, rounds, events = bench.some([1, 1000], [1, 100]), bench.some(5, 1), bench.some(1000, 10)
    measured = []
    for count in counts:
        others = "".join(f'\n[[routes]]\nname = "other-{nth}"\nsource = "stripe"\ntype = "other.{nth}.*"\naction = "job"\njob = "count-event"\n' for nth in range(count - 1))
        with ExitStack() as stack:
            app = Application(bench, stack, bench.database(f"routes_{count}"), ROUTE + others)
            app.send(events, 10**14)
            for nth in range(rounds):
                got = app.send(events, nth * events)
                measured.append({"routes": count, "round": nth, "handler_us": got["cpu"]["function-handlers"] * 1e6 / events, "per_second": events / got["effect_s"]})
    report.heading("Routes")
    report.text(f"Events of one source to their effect, with so many routes of which one matches; {rounds} rounds of {events:,} events.")
    tables(report, "routes", measured, "routes", {"handler_us": "function-handlers, CPU µs an event", "per_second": "events/s"})
    report.data(measured, "routes")


def keys(bench: Bench, report: Report) -> None:
    counts, rounds, turns = bench.some([1, 1000], [1, 100]), bench.some(5, 1), bench.some(1000, 8)
    measured = []
    for count in counts:
        with ExitStack() as stack:
            server = Server(bench, stack, bench.database(f"keys_{count}"), keys=["clq_" + secrets.token_urlsafe(32) for _ in range(count)])
            server.load("/v1/responses", turn(store=False), requests=turns)
            for nth in range(rounds):
                measured.append({"keys": count, "round": nth, **server.load("/v1/responses", turn(store=False), requests=turns)})
    report.heading("Keys")
    report.text(f"Turns with `store: false`, one at a time, by the last of so many keys in the settings; {rounds} rounds of {turns:,}.")
    tables(report, "keys", measured, "keys", {"server_us": "server, CPU µs a turn", "p50_ms": "p50 ms", "p99_ms": "p99 ms"})
    report.data(measured, "keys")
