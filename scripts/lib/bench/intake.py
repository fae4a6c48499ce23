"""What a signed delivery costs to take, beside the least it can cost and beside FastAPI; and how many events a second
come to their committed effect through all of it."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path

import processes
from . import peers, plots
from .measuring import Bench, Part, Spread, Sql, Unusable, called, cpu_of, say, storage_at, stripe_event, tree
from .report import Report, number, spread

CONNECTIONS = 32
BODY_BYTES = 2000
OURS = "function-handlers"


def run(bench: Bench) -> Report:
    report = Report(bench, "intake", "Intake")
    receiving(bench, report)
    committing(bench, report)
    return report


def receiving(bench: Bench, report: Report) -> None:
    rounds, seconds = bench.some(7, 2), bench.some(5, 0.3)
    body = bench.directory / "event.json"
    body.write_text(stripe_event(BODY_BYTES))
    with ExitStack() as stack:
        subjects = receivers(bench, stack)
        secret = bench.secret("stripe")
        rows, number_from = [], 0
        for name, (_, url) in subjects.items():
            bench.load(url, requests=bench.some(2000, 20), connections=CONNECTIONS, body=body, stripe=secret, strict=True, **{"from": 10**9})
            say(f"{name} is warm")
        order = list(subjects)
        for nth in range(rounds):
            # Interleaved, and not always in the same order: what else the machine does meets all alike.
            for name in order[nth % len(order):] + order[:nth % len(order)]:
                part, url = subjects[name]
                before = part.cpu()
                got = bench.load(url, seconds=seconds, connections=CONNECTIONS, body=body, stripe=secret, strict=True, **{"from": number_from})
                cpu = part.cpu() - before
                number_from += got["requests"]
                rows.append({"round": nth, "subject": name, "requests": got["requests"], "per_second": got["requests"] / got["seconds"],
                             "cpu_us": cpu * 1e6 / got["requests"], "core_share": cpu / got["seconds"], "load_share": got["own_cpu"] / got["seconds"],
                             "p50_ms": got["p50_us"] / 1e3, "p99_ms": got["p99_us"] / 1e3})  # fmt: skip
    describe(report, bench, rows, rounds, seconds)


def receivers(bench: Bench, stack: ExitStack) -> dict[str, tuple[Part, str]]:
    """Everything that takes deliveries, up and answering, each on the subject's core."""
    storage = storage_at(bench.stand_in("queue", stack))
    environment = bench.environment(storage, None, "")
    secret = bench.secret("stripe")
    subjects = {}

    def start(name: str, command, port: int, health: str | None, env: dict[str, str], cwd: Path) -> None:
        part = stack.enter_context(Part(name, command, bench.subject_core, env=env, cwd=cwd, log=bench.directory / f"{name.split()[0]}.log"))
        if health:
            part.until_answers(port, health)
        elif not processes.until(lambda: processes.answers(port), 20):
            raise Unusable(f"{name} does not listen.")
        subjects[name] = (part, f"http://127.0.0.1:{port}/api/webhooks/stripe")

    ports = processes.free_ports(4)
    app = bench.app()
    start(OURS, [bench.handlers], ports[0], "/api/health/live", environment | {"FUNCTIONS_CUSTOMHANDLER_PORT": str(ports[0])}, app)
    limit = [bench.program, "limit", "--secret", secret, "--port"]
    start("warp, HMAC only", [*limit, ports[1]], ports[1], None, environment, app)
    start("warp, HMAC and queue", [*limit, ports[2], "--storage", storage], ports[2], None, environment, app)
    if home := peers.install("fastapi"):
        env = peers.environment(home, secret, storage)
        command = [sys.executable, "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", "1", "-b", f"127.0.0.1:{ports[3]}", "webhooks:app"]
        start("FastAPI, uvicorn, gunicorn", command, ports[3], "/api/health/live", env, bench.directory)
    return subjects


def describe(report: Report, bench: Bench, rows: list[dict], rounds: int, seconds: float) -> None:
    of = lambda name, what: Spread.of(row[what] for row in rows if row["subject"] == name)
    names = list(dict.fromkeys(row["subject"] for row in rows))
    ours = of(OURS, "cpu_us").median or 1
    report.heading("A delivery, signed and put on a queue")
    report.text(f"Signed Stripe deliveries of {BODY_BYTES} bytes, {CONNECTIONS} connections, {rounds} interleaved rounds of {seconds:g} s. The subject runs alone "
                "on one core; the load and a stand-in for the queue, which takes every message at once, run on the others. Medians, with the lowest and highest round. "
                "*HMAC only* is the limit: warp checks the signature and answers. *HMAC and queue* also puts the body by the client that ours uses. "
                "FastAPI does what ours does: verify, parse, redact, write a message, put it, log a line, answer; one uvicorn worker with uvloop under gunicorn.")  # fmt: skip
    report.table(
        ["subject", "CPU against ours", "CPU µs a request", "requests/s", "p50 ms", "p99 ms", "of its core", "of the load's"],
        [[name, f"**{of(name, 'cpu_us').median / ours:.2f} ×**", spread(of(name, "cpu_us")), spread(of(name, "per_second")), number(of(name, "p50_ms").median),
          number(of(name, "p99_ms").median), f"{of(name, 'core_share').median:.0%}", f"{of(name, 'load_share').median:.0%}"] for name in names])  # fmt: skip
    report.text("Where the load's own core is near 100 %, requests/s are the load's limit and not the subject's; CPU µs hold in any case.")
    report.plot("cpu", plots.bars("CPU µs of a delivery (median; line: lowest to highest round)", {name: of(name, "cpu_us") for name in names}), "CPU of a delivery")
    report.data(rows, "receiving")


# -- to the committed effect -----------------------------------------------------------------------------------------


class Application:
    """The whole function app on one machine: devhost and its handler on the subject's core, over a database and the services."""

    def __init__(self, bench: Bench, stack: ExitStack, database: str, config: str | None = None):
        self.bench, self.services = bench, bench.services
        # Queues of its own, as the database: nothing of a run before comes into this one.
        queues = {f"QUEUE_{name.upper()}": f"{database.replace('_', '-')}-{name}" for name in ("events", "jobs", "callbacks")}
        environment = bench.environment(self.services.storage(), self.services, database, APP_LOG_LEVEL="warn", **queues)
        port = processes.free_ports(1)[0]
        app = bench.app(config)
        self.host = stack.enter_context(Part("devhost", [bench.devhost, "start", "--root", app, "--port", str(port)], bench.subject_core, env=environment, cwd=app, log=bench.directory / "devhost.log"))
        self.host.until_answers(port, "/api/health/live")
        self.url = f"http://127.0.0.1:{port}/api/webhooks/stripe"
        self.sql = stack.enter_context(Sql(self.services.url(database, pooled=False)))
        self.body = bench.directory / "event.json"
        self.body.write_text(stripe_event(BODY_BYTES))

    def parts(self) -> dict[str, float]:
        """Processor time of everything that has a share in an event, in seconds so far."""
        handler = [pid for pid in tree(self.host.pid) if called(pid) == OURS[:15]]
        postmaster = self.services.postmaster()
        return {
            "function-handlers": cpu_of(handler), "devhost": cpu_of([self.host.pid]), "Azurite": cpu_of(self.services.azurite_pids()),
            "PostgreSQL": cpu_of(tree(postmaster)), "PgBouncer": cpu_of(self.services.pgbouncer_pids()),
        }  # fmt: skip

    def effects(self) -> float:
        return self.sql.one("SELECT coalesce(sum(events), 0) FROM event_counts WHERE source = 'stripe'")

    def send(self, events: int, first: int, connections: int = CONNECTIONS) -> dict:
        """Sends so many new events and waits until each has had its effect. Gives times, CPU by part, and the curve."""
        return self._send(events, first, connections, self.effects)

    def send_again(self, events: int, first: int) -> dict:
        """The same with events that were sent before: waits until each delivery is stored."""
        since = self.sql.rows("SELECT uuid_floor(now())")[0][0]
        return self._send(events, first, CONNECTIONS, lambda: self.sql.one(f"SELECT count(*) FROM deliveries WHERE source = 'stripe' AND id >= '{since}'"))

    def _send(self, events: int, first: int, connections: int, count) -> dict:
        before, wanted = self.parts(), count() + events
        began = time.monotonic()
        accepted = self.bench.load(self.url, requests=events, connections=connections, body=self.body, stripe=self.bench.secret("stripe"), strict=True, **{"from": first})
        curve = []
        while True:
            done, at = count() - wanted + events, time.monotonic() - began
            curve.append((at, done))
            if done >= events:
                break
            if at > 60 + events / 2:
                raise Unusable(f"{events - done:.0f} of {events} events had no effect within {at:.0f} s.")
            time.sleep(0.2)
        after = self.parts()
        if done > events:
            raise Unusable(f"{events} events had {done:.0f} effects.")
        return {"events": events, "accepted_s": accepted["seconds"], "effect_s": curve[-1][0], "curve": curve, "load_cpu": accepted["own_cpu"],
                "answer_p50_ms": accepted["p50_us"] / 1e3, "answer_p99_ms": accepted["p99_us"] / 1e3,
                "cpu": {name: after[name] - before[name] for name in after}}  # fmt: skip

    def stages(self) -> dict[str, list[float]]:
        """Milliseconds from stage to stage of what was sent last: p50 and p99."""
        stages = {
            "answered → stored (queue, one statement)": "stored_at - e.received_at",
            "stored → job begun and done (hint, queue, claim, effect, end)": "j.finished_at - stored_at",
            "received → effect committed": "j.finished_at - e.received_at",
        }
        of = ", ".join(f"percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM {time}) * 1000)" for time in stages.values())
        row = self.sql.rows(f"SELECT {of} FROM events e JOIN deliveries d ON d.id = e.delivery_id JOIN jobs j ON j.event_id = e.id WHERE j.finished_at IS NOT NULL")[0]
        return {name: [float(figure) for figure in cell.strip("{}").split(",")] for name, cell in zip(stages, row)}


ROUTE = '[sources.stripe]\nkind = "stripe"\n\n[[routes]]\nname = "count"\nsource = "stripe"\naction = "job"\njob = "count-event"\n'


def committing(bench: Bench, report: Report) -> None:
    flood, alone = bench.some(20_000, 60), bench.some(500, 10)
    with ExitStack() as stack:
        app = Application(bench, stack, bench.database("intake"), ROUTE)
        app.send(bench.some(500, 10), 10**12)
        app.sql.rows("TRUNCATE events, deliveries, jobs")
        single = app.send(alone, 10**13, connections=1)
        stages = app.stages()
        say("one at a time is done")
        flooded = app.send(flood, 0)
    report.heading("To the committed effect")
    report.text(f"The whole function app on this machine: `devhost` in the place of the Functions host and its handler on one core; Azurite, PgBouncer, PostgreSQL with its syncs and the load on the others. "
                f"Each event runs a job that counts it. {flood:,} events from {CONNECTIONS} connections as fast as they are taken, then until each is counted, once.")  # fmt: skip
    report.table(["", "events/s"], [
        ["answered with 200 (durable in the queue)", number(flood / flooded["accepted_s"])],
        ["to the committed effect", f"**{number(flood / flooded['effect_s'])}**"]])  # fmt: skip
    everything = sum(flooded["cpu"].values()) + flooded["load_cpu"]
    report.text("Where the processor time goes:")
    report.table(["part", "CPU µs an event", "share"], [
        [name, number(cpu * 1e6 / flood), f"{cpu / (everything or 1):.0%}"] for name, cpu in [*flooded["cpu"].items(), ("the load", flooded["load_cpu"])]])  # fmt: skip
    report.plot("parts", plots.bars("CPU µs of an event, by part", {name: Spread.of([cpu * 1e6 / flood]) for name, cpu in flooded["cpu"].items()}), "CPU by part")
    report.plot("effects", plots.lines("Effects committed", "seconds", {"effects": flooded["curve"]}), "Effects over time")
    report.text(f"One sender that waits for each answer ({alone:,} events): the answer takes {number(single['answer_p50_ms'])} ms (p99 {number(single['answer_p99_ms'])}). Then, in ms:")
    report.table(["stage", "p50", "p99"], [[name, number(p50), number(p99)] for name, (p50, p99) in stages.items()])
    report.data([{"run": name, **{key: value for key, value in got.items() if key not in ("curve", "cpu")}, **{f"cpu_{part}": cpu for part, cpu in got["cpu"].items()}}
                 for name, got in (("flood", flooded), ("one at a time", single))], "committing")  # fmt: skip
    report.data([{"second": at, "effects": done} for at, done in flooded["curve"]], "effects")
