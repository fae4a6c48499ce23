"""Processes on cores of their own, what they cost, and the programs that ask them.

What counts is processor time, from /proc, of a process and all it started: it depends less on what else the machine does
than times on the clock do.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import machine
import processes
from services import ACCOUNT, ACCOUNT_KEY, Services
from settings import Settings

ROOT = machine.ROOT
TICKS = os.sysconf("SC_CLK_TCK")


class Unusable(Exception):
    """Something that is to be measured does not do what it should; the text says what."""


def say(text: str) -> None:
    print(f"[bench] {text}", flush=True)


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values) -> "Spread":
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they live."""
    found, rest = [], [pid]
    while rest:
        pid = rest.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                rest += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def cpu_of(pids) -> float:
    """Seconds of processor time so far, with that of children that have ended."""
    seconds = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            threads = sum(map(ran, Path(f"/proc/{pid}/task").iterdir()))
        except OSError:
            continue
        # Threads count nanoseconds, and are forgotten when they end; the process counts hundredths, and forgets none.
        seconds += max(threads / 1e9, sum(map(int, fields[11:13])) / TICKS) + sum(map(int, fields[13:15])) / TICKS
    return seconds


def ran(thread: Path) -> int:
    """Nanoseconds; none of a thread that has just ended."""
    try:
        return int((thread / "schedstat").read_text().split()[0])
    except OSError:
        return 0


def called(pid: int) -> str:
    """A process's name, of which the kernel keeps 15 characters; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024


class Part:
    """A process that is measured or measures; it ends with the `with` it stands in."""

    def __init__(self, name: str, command, core: int | None = None, env=None, cwd=None, talks: bool = False, log: Path | None = None, shown: bool = False):
        """`core`: its own, or where we are. `talks`: by its input and output; else both go to `log`, or are shown."""
        self.name = name
        self.log = log
        output = open(log, "ab") if log else None if shown else subprocess.DEVNULL
        ours = os.sched_getaffinity(0)
        if core is not None:
            # Inherited, so that nothing runs before the program itself.
            os.sched_setaffinity(0, {core})
        try:
            self.started = time.perf_counter()
            self.child = subprocess.Popen(
                list(map(str, command)), env=env, cwd=cwd, start_new_session=True,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL, stdout=subprocess.PIPE if talks else output, stderr=None if talks else output)
        finally:
            os.sched_setaffinity(0, ours)
            if log:
                output.close()

    @property
    def pid(self) -> int:
        return self.child.pid

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def kill(self) -> None:
        """It and what it started, at once, also after its own end: nothing of a benchmark is kept."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

    def cpu(self) -> float:
        return cpu_of(tree(self.pid))

    def resident(self) -> int:
        return resident(self.pid)

    def until_answers(self, port: int, path: str, patience: float = 60.0) -> float:
        """Waits for the first 200; gives the seconds from before `exec` to the answer's last byte."""
        request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
        while time.perf_counter() - self.started < patience:
            if self.child.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    connection.sendall(request)
                    answer = b""
                    while piece := connection.recv(65536):
                        answer += piece
            except OSError:
                continue
            if answer.startswith(b"HTTP/1.1 200"):
                return time.perf_counter() - self.started
            time.sleep(0.001)
        raise Unusable(f"{self.name} did not answer GET {path} with 200. Its log ends:\n{processes.tail(self.log) if self.log else ''}")


class Sql:
    """A session of psql that stays open: one query after another."""

    def __init__(self, url: str):
        psql = machine.postgres_bin() / "psql"
        self.child = subprocess.Popen([psql, "-XqAt", "-v", "ON_ERROR_STOP=1", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Sql":
        return self

    def __exit__(self, *_) -> None:
        self.child.stdin.close()
        self.child.wait()

    def rows(self, query: str) -> list[list[str]]:
        """Columns as text. Statements without rows give none."""
        self.child.stdin.write(f"{query.strip().rstrip(';')};\n\\echo --end--\n")
        self.child.stdin.flush()
        found = []
        for line in self.child.stdout:
            if line == "--end--\n":
                return found
            found.append(line.rstrip("\n").split("|"))
        raise Unusable(f"PostgreSQL refused: {query.strip().splitlines()[0]}; its message is above.")

    def one(self, query: str) -> float:
        return float(self.rows(query)[0][0] or 0)


class Bench:
    """One run of scripts/bench: how much, with which programs, on which cores, and where what it leaves goes."""

    def __init__(self, short: bool, rows: int | None):
        self.short = short
        self.rows = rows
        self.stack = ExitStack()
        self.directory = ROOT / ".local" / "bench"
        self.directory.mkdir(parents=True, exist_ok=True)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2 and not short:
            raise Unusable("one core is the subject's; at least one more is needed for the load.")
        # With one core all share it: then it only runs, and says nothing.
        self.subject_core = cores[-1]
        self.other_cores = cores[:-1] or cores
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.handlers = target / ("debug" if short else "release") / "function-handlers"
        self.devhost = target / ("debug" if short else "release") / "devhost"
        self.server = target / ("debug" if short else "release-server") / "conversation-server"
        self.program = target / ("debug" if short else "release-server") / "bench"

    def build(self) -> None:
        if self.short:
            builds = [["--bin", "function-handlers", "--bin", "devhost", "--bin", "conversation-server", "--bin", "bench"]]
        else:
            builds = [["--release", "--bin", "function-handlers", "--bin", "devhost"], ["--profile", "release-server", "--bin", "conversation-server", "--bin", "bench"]]
        for arguments in builds:
            say(f"cargo build {' '.join(arguments)}" + ("" if self.short else " (minutes)"))
            subprocess.run(["cargo", "build", "--features", "bench", *arguments], cwd=ROOT, check=True)

    def begin(self) -> None:
        """Sees whether everything is there that a run needs, and leaves the subject's core to the subject: all that is
        started from here on runs on the others, unless it is told otherwise."""
        for program in (self.handlers, self.devhost, self.server, self.program):
            if not program.exists():
                raise Unusable(f"there is no {program.relative_to(ROOT) if program.is_relative_to(ROOT) else program}; run scripts/bench without --no-build.")
        os.sched_setaffinity(0, self.other_cores)

    def some(self, full, short):
        return short if self.short else full

    # -- what runs beside ------------------------------------------------------------------------------------------

    @cached_property
    def services(self) -> Services:
        """PostgreSQL behind PgBouncer, Azurite, Redis, durable as real ones; once for the whole run."""
        services = Services(self.directory / "services", durable=not self.short)
        # What a killed run left is of no use to this one.
        services.remove()
        services = Services(self.directory / "services", durable=not self.short)
        self.stack.callback(services.remove)
        services.up()
        return services

    def database(self, name: str) -> str:
        """A new database, migrated."""
        services = self.services
        subprocess.run([machine.postgres_bin() / "createdb", f"--maintenance-db={services.url('postgres', pooled=False)}", name], check=True)
        environment = self.environment(services.storage(), services, name)
        done = subprocess.run([self.handlers, "migrate"], cwd=self.app(), env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unusable(f"function-handlers migrate: {done.stderr[-2000:]}")
        return name

    def stand_in(self, kind: str, stack: ExitStack) -> str:
        """`queue` or `provider`; gives its address."""
        part = stack.enter_context(Part(kind, [self.program, kind], talks=True))
        return part.child.stdout.readline().decode().strip()

    def load(self, urls, **options) -> dict:
        """Asks, to the end, and gives what came of it; `own_cpu` is what asking took, in seconds."""
        command = [self.program, "load"]
        for url in [urls] if isinstance(urls, str) else urls:
            command += ["--url", url]
        for name, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                command += [f"--{name}"] if each is True else [f"--{name}", str(each)]
        before = os.times()
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        after = os.times()
        if done.returncode != 0:
            raise Unusable(f"the load ended: {done.stderr.strip()[-2000:]}")
        own = after.children_user + after.children_system - before.children_user - before.children_system
        return json.loads(done.stdout) | {"own_cpu": own}

    # -- the function app ------------------------------------------------------------------------------------------

    def app(self, config: str | None = None) -> Path:
        """What a published app is: function folders, host.json, colloquy.toml, the program."""
        root = self.directory / "app"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for function in ROOT.glob("*/function.json"):
            (root / function.parent.name).mkdir()
            shutil.copy(function, root / function.parent.name)
        shutil.copy(ROOT / "host.json", root)
        (root / "colloquy.toml").write_text(config or (ROOT / "colloquy.toml").read_text())
        (root / "function-handlers").symlink_to(self.handlers)
        return root

    def environment(self, storage: str, services: Services | None, database: str, **more: str) -> dict[str, str]:
        """Settings of either program. Nothing of ours beside PATH: what is measured must not depend on who measures."""
        settings = Settings(self.directory / "env", ROOT / "colloquy.toml")
        at = (lambda pooled: services.url(database, pooled)) if services else (lambda _: "postgres://nobody@127.0.0.1:9/none")
        settings.complete({"DATABASE_URL": at(True), "DATABASE_DIRECT_URL": at(False), "AzureWebJobsStorage": storage, "CONSUMER_URL": "http://127.0.0.1:9/"})
        return {"PATH": os.environ["PATH"], **settings.values, **more}

    def secret(self, source: str) -> str:
        return Settings(self.directory / "env", ROOT / "colloquy.toml").values[f"WEBHOOK_SECRET_{source.upper()}"]


def storage_at(address: str) -> str:
    """A connection string for the queue's stand-in."""
    return (f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={address}/{ACCOUNT};QueueEndpoint={address}/{ACCOUNT};")


def stripe_event(size: int) -> str:
    """An event of about so many bytes, as a template: `{n}` becomes its number."""
    event = {"id": "evt_{n}", "object": "event", "api_version": "2025-10-29", "created": 1763700000, "type": "invoice.paid", "livemode": False,
             "pending_webhooks": 1, "request": {"id": None, "idempotency_key": None},
             "data": {"object": {"id": "in_{n}", "object": "invoice", "amount_paid": 4200, "currency": "eur", "customer": "cus_Sample1", "status": "paid", "lines": []}}}
    lines = event["data"]["object"]["lines"]
    while len(json.dumps(event)) < size:
        lines.append({"id": f"il_{len(lines):04}", "object": "line_item", "amount": 100 + len(lines), "description": "One of several lines", "quantity": 1})
    return json.dumps(event)
