"""What scripts/drill rehearses: each drill is a function that notes what it did, and raises Lost where something is missing."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import machine
import processes
from services import Services
from settings import Settings

ROOT = machine.ROOT


class Lost(Exception):
    """The drill failed: something was lost, or did not come back."""


class Unable(Exception):
    """The drill cannot be held here; the text says what is missing."""


@dataclass
class Report:
    """What a drill measured. `down` is what its time objective is about."""

    name: str
    objective: float
    facts: list[str] = field(default_factory=list)
    down: float = 0.0

    def note(self, fact: str) -> None:
        self.facts.append(fact)
        print(f"  {fact}", flush=True)


def program(name: str) -> Path:
    found = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / name
    if not found.exists():
        raise Unable(f"{found} is not there: scripts/build first.")
    return found


# -- restore ----------------------------------------------------------------------------------------------------


class Cluster:
    """A PostgreSQL of its own below a folder, run as whoever may."""

    def __init__(self, folder: Path, name: str, user: str | None):
        self.data, self.log, self.user = folder / name, folder / f"{name}.log", user
        self.port = processes.free_ports(1)[0]
        self.child: subprocess.Popen | None = None

    def run(self, tool: str, *arguments: str, text: str | None = None) -> str:
        account = pwd.getpwnam(self.user) if self.user else None
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
        done = subprocess.run([machine.postgres_bin() / tool, *arguments], input=text, text=True, capture_output=True, cwd=self.data.parent, check=False, **who)
        if done.returncode != 0:
            raise Lost(f"{tool} failed: {done.stderr.strip()[-800:]}")
        return done.stdout

    def start(self, settings: dict[str, str]) -> None:
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [str(machine.postgres_bin() / "postgres"), "-D", str(self.data), f"--port={self.port}", "--listen_addresses=127.0.0.1", "--unix_socket_directories=", "--timezone=UTC", *options]
        self.child = processes.daemon(command, self.log, self.user, self.data.parent)

    def await_writable(self, limit: float) -> None:
        def writable() -> bool:
            if self.child.poll() is not None:
                raise Lost(f"PostgreSQL ended; its log ends:\n{processes.tail(self.log)}")
            try:
                return self.sql("select not pg_is_in_recovery()").strip() == "t"
            except Lost:
                return False

        if not processes.until(writable, limit):
            raise Lost(f"PostgreSQL took no writes within {limit:g} s; its log ends:\n{processes.tail(self.log)}")

    def sql(self, text: str, database: str = "postgres") -> str:
        return self.run("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--host", "127.0.0.1", "--port", str(self.port),
                        "--username", "colloquy", "--dbname", database, text=text)  # fmt: skip

    def stop(self, number: int) -> None:
        if self.child and self.child.poll() is None:
            self.child.send_signal(number)
            self.child.wait(60)


# Rows as the programs write them, each in a transaction of its own, for as long as the drill goes on.
WRITES = """do $$ begin
  for i in 1..100000 loop
    insert into instances (id, lease_until) values (gen_random_uuid(), now());
    insert into api_audit (id, actor, action, subject) values (uuid_in(overlay(overlay(md5(random()::text) placing to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint)::text from 2) placing '0' from 1)::cstring), 'drill', 'drill', i::text);
    commit;
    perform pg_sleep(0.002);
  end loop;
end $$;"""


def restore(report: Report, mistake: str = "") -> None:
    """A base backup and archived WAL, damage at a known moment, and a restore to just before it with all rows counted."""
    machine.ensure_postgres()
    user = machine.postgres_user()
    folder = Path(tempfile.mkdtemp(prefix="colloquy-drill-", dir="/var/tmp"))
    archive = folder / "archive"
    archive.mkdir()
    if user:
        account = pwd.getpwnam(user)
        for path in (folder, archive):
            os.chown(path, account.pw_uid, account.pw_gid)
    source, restored = Cluster(folder, "source", user), Cluster(folder, "restored", user)
    writer = None
    try:
        source.run("initdb", "-D", str(source.data), "-U", "colloquy", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        archiving = {"wal_level": "replica", "archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
        source.start(archiving)
        source.await_writable(60)
        for file in sorted((ROOT / "migrations").glob("V*.sql")):
            source.sql(file.read_text())
        source.sql("select ensure_month_partition(parent, now()) from unnest(array['api_audit']) parent")
        writer = threading.Thread(target=write, args=(source,), daemon=True)
        writer.start()
        if not processes.until(lambda: int(source.sql("select count(*) from instances")) > 50, 60):
            raise Lost("nothing was written before the backup")
        started = time.monotonic()
        source.run("pg_basebackup", "--host", "127.0.0.1", "--port", str(source.port), "--username", "colloquy", "--pgdata", str(restored.data), "--wal-method", "none", "--checkpoint", "fast")
        report.note(f"base backup while it was written to: {time.monotonic() - started:.1f} s")
        at_backup = int(source.sql("select count(*) from instances"))
        if not processes.until(lambda: int(source.sql("select count(*) from instances")) > at_backup + 200, 60):
            raise Lost("nothing was written after the backup")
        moment, wanted = counts_at(source)
        report.note(f"the moment: {moment}; {sum(wanted.values())} rows in {len(wanted)} tables")
        source.sql("select pg_sleep(0.2); truncate api_audit; delete from instances where random() < 0.5; drop table budgets cascade")
        too_late = source.sql("select clock_timestamp()").strip()
        source.sql("select pg_sleep(0.2); select pg_switch_wal()")
        last = source.sql("select pg_walfile_name(pg_switch_wal())").strip()
        if not processes.until(lambda: source.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver").strip() >= last or (archive / last).exists(), 60):
            raise Lost("the last piece of WAL was not archived")
        report.note("then: a table emptied, half of another deleted, a third dropped")
        if mistake == "too late":
            moment = too_late
        if mistake == "wal missing":
            newest = sorted(archive.iterdir())[-2:]
            for file in newest:
                file.unlink()
        began = time.monotonic()
        source.stop(signal.SIGQUIT)
        (restored.data / "recovery.signal").touch()
        if user:
            os.chown(restored.data / "recovery.signal", account.pw_uid, account.pw_gid)
        restored.start({"restore_command": f"cp {archive}/%f %p", "recovery_target_time": moment, "recovery_target_action": "promote", "archive_mode": "off"})
        restored.await_writable(600)
        found = counts(restored)
        report.down = time.monotonic() - began
        wrong = {table: (rows, found.get(table)) for table, rows in wanted.items() if found.get(table) != rows}
        if wrong or set(found) != set(wanted):
            raise Lost(f"rows then and rows restored differ: {wrong or set(found) ^ set(wanted)}")
        # It is a database that works, not only one that can be read.
        restored.sql("insert into instances (id, lease_until) values (gen_random_uuid(), now())")
        report.note(f"restored to the moment: all {sum(found.values())} rows, table by table, and it takes writes")
    finally:
        for cluster in (source, restored):
            cluster.stop(signal.SIGQUIT)
        if writer:
            writer.join(10)
        shutil.rmtree(folder, ignore_errors=True)


def write(source: Cluster) -> None:
    # Ends with the server.
    with contextlib.suppress(Lost):
        source.sql(WRITES)


COUNTS = """select string_agg(format('select %L, count(*) from %I', relname, relname), ' union all ' order by relname)
from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"""


def counts(cluster: Cluster) -> dict[str, int]:
    rows = cluster.sql(cluster.sql(COUNTS)).split()
    return {name: int(count) for name, _, count in (row.partition("|") for row in rows)}


def counts_at(cluster: Cluster) -> tuple[str, dict[str, int]]:
    """A moment, and every table's rows then: writers are kept out until it is past, so that no commit is on its edge."""
    query = cluster.sql(COUNTS).strip()
    rows = cluster.sql(f"begin; lock table instances, api_audit in share mode; select pg_sleep(0.05); {query}; select 'moment', clock_timestamp(); select pg_sleep(0.05); commit;").split("\n")
    pairs = [row.split("|") for row in rows if "|" in row]
    moment = next(value for name, value in pairs if name == "moment")
    return moment, {name: int(count) for name, count in pairs if name != "moment"}


# -- both programs ----------------------------------------------------------------------------------------------


class Stage:
    """A database, queues, and processes that come and go."""

    def __init__(self):
        self.home = ROOT / ".local" / "drill"
        self.services = Services(self.home, None, durable=False)
        self.children: list[subprocess.Popen] = []

    def __enter__(self) -> "Stage":
        # Before anything is started: what is missing is said at once.
        self.functions, self.server_program, self.host = program("function-handlers"), program("conversation-server"), program("devhost")
        self.services.remove()
        self.home.mkdir(parents=True, exist_ok=True)
        self.services.up()
        settings = Settings(self.home / "env", ROOT / "colloquy.toml")
        settings.complete({
            "DATABASE_URL": self.services.url("postgres", pooled=True), "DATABASE_DIRECT_URL": self.services.url("postgres", pooled=False),
            "AzureWebJobsStorage": self.services.storage(), "CONSUMER_URL": "http://127.0.0.1:9/callbacks",
        })  # fmt: skip
        self.settings = settings.values
        self.environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")} | settings.values
        self.command("migrate")
        return self

    def __exit__(self, *_) -> None:
        processes.stop([child.pid for child in self.children if child.poll() is None])
        for child in self.children:
            child.wait()
        self.services.remove()

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run([self.functions, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if check and done.returncode != 0:
            raise Lost(f"function-handlers {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
        return done

    def start(self, name: str, command: list[str], url: str, **settings: str) -> subprocess.Popen:
        with open(self.home / f"{name}.log", "ab") as log:
            child = subprocess.Popen(command, cwd=ROOT, env=self.environment | settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.children.append(child)
        if not processes.until(lambda: child.poll() is not None or asked(url) == 200, 60) or child.poll() is not None:
            raise Lost(f"{name} did not come up; its log ends:\n{processes.tail(self.home / f'{name}.log')}")
        return child

    def server(self, name: str) -> tuple[subprocess.Popen, str]:
        port = processes.free_ports(1)[0]
        url = f"http://127.0.0.1:{port}"
        return self.start(name, [str(self.server_program)], url + "/health/ready", PORT=str(port)), url

    def turn(self, url: str, words: int = 200) -> str:
        return self.ask(url, "/v1/responses", {"model": "demo", "background": True, "input": f"Tell me a story in {words} words."})["id"]

    def ask(self, url: str, path: str, body: dict | None = None) -> dict:
        headers = {"authorization": f"Bearer {self.settings['COLLOQUY_DEV_API_KEY']}", "content-type": "application/json"}
        request = urllib.request.Request(url + path, headers=headers, data=json.dumps(body).encode() if body else None)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def await_ends(self, url: str, turns: list[str], limit: float) -> dict[str, int]:
        """How many of the turns ended how; all of them have to."""
        def ends() -> list[str]:
            return [self.ask(url, f"/v1/responses/{turn}")["status"] for turn in turns]

        if not processes.until(lambda: all(end not in ("queued", "in_progress") for end in ends()), limit):
            raise Lost(f"not all turns ended within {limit:g} s: {sorted(ends())}")
        told = ends()
        return {end: told.count(end) for end in sorted(set(told))}


def asked(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def killed_instance(report: Report) -> None:
    """One of two servers is killed with turns in flight. The other takes over all of them."""
    with Stage() as stage:
        doomed, first = stage.server("doomed")
        _, second = stage.server("survivor")
        turns = [stage.turn(first) for _ in range(8)]
        if not processes.until(lambda: sum(stage.ask(second, f"/v1/responses/{turn}")["status"] == "in_progress" for turn in turns) == len(turns), 30):
            raise Lost("the turns did not start")
        doomed.kill()
        began = time.monotonic()
        ends = stage.await_ends(second, turns, 180)
        report.down = time.monotonic() - began
        # None may be silent about what became of it.
        if set(ends) - {"completed", "incomplete"}:
            raise Lost(f"turns ended as {ends}")
        report.note(f"8 turns of the killed server ended on the other: {', '.join(f'{count} {end}' for end, count in ends.items())}")


def swap_back(report: Report) -> None:
    """The new version serves, with turns in flight; the old one is started and takes its place. Nobody's turn is lost, no request fails."""
    with Stage() as stage:
        new, url = stage.server("new")
        turns = [stage.turn(url, 1500) for _ in range(8)]
        front = {"url": url}
        failures, answered, over = [], [0], threading.Event()

        def caller() -> None:
            while not over.is_set():
                status = asked(front["url"] + "/health/ready")
                answered[0] += 1
                if status != 200:
                    failures.append(status)
                over.wait(0.02)

        thread = threading.Thread(target=caller, daemon=True)
        thread.start()
        began = time.monotonic()
        _, old_url = stage.server("old")
        front["url"] = old_url
        report.note(f"the old version took the new one's place after {time.monotonic() - began:.1f} s")
        new.terminate()
        new.wait(120)
        report.note(f"the new version drained and ended after {time.monotonic() - began:.1f} s")
        ends = stage.await_ends(old_url, turns, 300)
        report.down = time.monotonic() - began
        over.set()
        thread.join()
        if failures:
            raise Lost(f"{len(failures)} of {answered[0]} requests were not answered: {sorted(set(failures))}")
        if set(ends) - {"completed", "incomplete"}:
            raise Lost(f"turns ended as {ends}")
        report.note(f"{answered[0]} requests meanwhile, all answered; 8 turns: {', '.join(f'{count} {end}' for end, count in ends.items())}")


def rollback_functions(report: Report) -> None:
    """The function package before is put in place of the new one while senders send. Every delivery that was accepted has its event."""
    with Stage() as stage:
        port = processes.free_ports(1)[0]
        url = f"http://127.0.0.1:{port}"
        packages = {name: package(stage, name) for name in ("old", "new")}

        def host(name: str) -> subprocess.Popen:
            return stage.start(f"host-{name}", [str(stage.host), "start", "--root", str(packages[name]), "--port", str(port)], url + "/api/health/ready")

        new = host("new")
        sent: dict[str, bool] = {}
        over = threading.Event()

        def sender() -> None:
            number = 0
            while not over.is_set():
                number += 1
                body = stage.home / f"delivery-{number}.json"
                body.write_text(json.dumps({"id": f"drill-{number}", "type": "drill.sent", "n": number}))
                # As senders do: again until it is accepted.
                while stage.command("webhooks", "send", "internal", str(body), "--url", url, check=False).returncode != 0:
                    sent.setdefault(body.stem, False)
                    if over.wait(0.2):
                        return
                sent[body.stem] = True

        thread = threading.Thread(target=sender, daemon=True)
        thread.start()
        if not processes.until(lambda: sum(sent.values()) >= 5, 60):
            raise Lost("the new package accepts nothing")
        began = time.monotonic()
        new.terminate()
        new.wait(60)
        host("old")
        report.down = time.monotonic() - began
        accepted = sum(sent.values())
        if not processes.until(lambda: sum(sent.values()) >= accepted + 5, 60):
            raise Lost("the old package accepts nothing")
        over.set()
        thread.join()
        wanted = {f"drill-{name.removeprefix('delivery-')}" for name, ok in sent.items() if ok}
        found: set[str] = set()

        def all_there() -> bool:
            listed = stage.command("events", "list", "--source", "internal", "--limit", "1000", "--json").stdout
            found.update(name for name in wanted if f'"{name}"' in listed)
            return found == wanted

        if not processes.until(all_there, 120):
            raise Lost(f"accepted and without an event: {sorted(wanted - found)}")
        report.note(f"{len(wanted)} deliveries accepted, {len(found)} events; senders were refused for {report.down:.1f} s")


def package(stage: Stage, name: str) -> Path:
    """A folder as a package unpacks to."""
    folder = stage.home / name
    folder.mkdir()
    for path in [ROOT / "host.json", ROOT / "colloquy.toml", *(path.parent for path in ROOT.glob("*/function.json"))]:
        (folder / path.name).symlink_to(path)
    shutil.copy2(stage.functions, folder / "function-handlers")
    return folder


# Mistakes that a restore must not pass over: `scripts/drill --self-test`.
MISTAKES = ("too late", "wal missing")
# Name, function, and seconds within which it has to be over: the RTO of an hour.
DRILLS = {
    "restore": (restore, 3600), "killed-instance": (killed_instance, 3600), "swap-back": (swap_back, 3600), "rollback-functions": (rollback_functions, 3600),
}  # fmt: skip

