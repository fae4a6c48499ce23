"""PostgreSQL, PgBouncer, Redis and Azurite, private to one directory.

    services = Services(directory, ports)
    services.up()       # idempotent: what runs is left alone, what died is cleaned up after and started
    services.down()     # stops them all, also after their parents were killed

Nothing outside the directory is touched, and nothing listens anywhere but on 127.0.0.1.
"""

import fcntl
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import machine
import processes

# The well-known development account; not a secret. https://learn.microsoft.com/azure/storage/common/storage-use-azurite
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Ports:
    postgres: int
    pgbouncer: int
    blob: int
    queue: int
    table: int
    # 0: without Redis, which one instance does not need.
    redis: int = 0


class Busy(Exception):
    """A port belongs to a process that is not ours."""


class Failed(Exception):
    """A service did not come up; the text ends with its log."""


class Services:
    def __init__(self, directory: Path, ports: Ports | None = None, durable: bool = True, settings: dict[str, str] | None = None):
        """`ports`: fixed ones, or None for free ones, which are then kept over restarts. `durable=False` turns off
        everything PostgreSQL does for a crash of the machine. `settings`: which variable moves which port, for messages."""
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.fixed = ports
        self.ports = ports
        self.durable = durable
        self.settings = settings or {}
        self.user = machine.postgres_user() if machine.postgres_bin() else None

    # -- addresses -----------------------------------------------------------------------------------------------

    def url(self, database: str, pooled: bool) -> str:
        port = self.ports.pgbouncer if pooled else self.ports.postgres
        return f"postgres://colloquy:{self._password()}@127.0.0.1:{port}/{database}"

    def _password(self) -> str:
        """The superuser's, made with the cluster."""
        return (self._home() / "password").read_text().strip()

    def storage(self) -> str:
        at = {name: f"http://127.0.0.1:{port}/{ACCOUNT}" for name, port in (("Blob", self.ports.blob), ("Queue", self.ports.queue), ("Table", self.ports.table))}
        endpoints = "".join(f"{name}Endpoint={address};" for name, address in at.items())
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};{endpoints}"

    def redis(self) -> str:
        return f"redis://127.0.0.1:{self.ports.redis}"

    # -- up and down ---------------------------------------------------------------------------------------------

    def up(self) -> None:
        machine.ensure_postgres()
        if self.fixed is None or self.fixed.redis:
            machine.ensure_redis()
        azurite = machine.ensure_azurite()
        self.user = machine.postgres_user()
        with self._locked():
            for attempt in range(3):
                self._choose_ports()
                try:
                    self._postgres()
                    self._pgbouncer()
                    self._redis()
                    self._azurite(azurite)
                    return
                except Busy:
                    # Free ports were taken between choosing and listening: choose again.
                    if self.fixed or attempt == 2:
                        raise
                    self._stop()
                    self._state.unlink(missing_ok=True)
                    self.ports = None

    def read_ports(self) -> None:
        """The ports of services that were started before."""
        self._choose_ports()

    def healthy(self) -> bool:
        """Whether everything still listens."""
        return all(processes.answers(port) for port in asdict(self.ports).values() if port)

    def down(self) -> None:
        with self._locked():
            self._stop()

    def remove(self) -> None:
        """Stops everything and deletes the directory."""
        self.down()
        home = self._home()
        shutil.rmtree(home, ignore_errors=True)
        if home != self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def _locked(self):
        with open(self.directory / "services.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def _state(self) -> Path:
        return self.directory / "ports.json"

    def _choose_ports(self) -> None:
        if self.fixed:
            self.ports = self.fixed
        elif self.ports is None:
            try:
                self.ports = Ports(**json.loads(self._state.read_text()))
            except (OSError, ValueError, TypeError):
                self.ports = Ports(*processes.free_ports(len(fields(Ports))))
        self._state.write_text(json.dumps(asdict(self.ports)) + "\n")

    def _home(self) -> Path:
        """Where the servers that may not be root keep their files: the directory itself, or, when their user cannot
        get there (a clone under /root), a place that it can reach."""
        if self.user is None or all(parent.stat().st_mode & 0o001 for parent in self.directory.parents):
            return self.directory
        name = hashlib.sha256(str(self.directory).encode()).hexdigest()[:16]
        return Path("/var/tmp") / f"colloquy-{name}"

    def scratch(self) -> Path:
        """A directory in which everybody, also the user that PostgreSQL runs as, may make directories."""
        path = self._home() / "tmp"
        path.mkdir(exist_ok=True)
        os.chmod(path, 0o1777)
        return path

    def _own(self, *paths: Path) -> None:
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            for path in paths:
                os.chown(path, account.pw_uid, account.pw_gid)

    def _free(self, what: str, port: int) -> None:
        if processes.answers(port):
            setting = self.settings.get(what)
            hint = f" Stop it, or choose another port with {setting}." if setting else ""
            raise Busy(f"Port {port}, wanted for {what}, is in use by a process that is not ours.{hint}")

    # -- PostgreSQL ----------------------------------------------------------------------------------------------

    @property
    def _data(self) -> Path:
        return self._home() / "postgres"

    def _postgres_pids(self) -> list[int]:
        data = str(self._data)
        # A backend of a killed postmaster still stands in the data directory and keeps its shared memory alive.
        return processes.matching(lambda arguments, cwd: cwd == data and "postgres" in arguments[0])

    def postmaster(self) -> int | None:
        data = str(self._data)
        found = processes.matching(lambda arguments, _: arguments[0].endswith("/postgres") and data in arguments)
        return found[0] if found else None

    def _postgres(self) -> None:
        binaries, port = machine.postgres_bin(), self.ports.postgres
        if self.postmaster() and self._ready():
            return
        processes.stop(self._postgres_pids(), signal.SIGQUIT)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._free("postgres", port)
        if not (self._data / "complete").exists() or not (self._home() / "password").exists():
            self._initialise(binaries)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "shared_buffers": "128MB",
            "timezone": "UTC",
            # A killed client's statement is noticed, as Azure's servers are set up too.
            "client_connection_check_interval": "5s",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum_naptime": "10s"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        log = self.directory / "postgres.log"
        child = processes.daemon([str(binaries / "postgres"), "-D", str(self._data), *options], log, self.user, self._home())
        if not processes.until(lambda: child.poll() is not None or self._ready(), 60) or child.poll() is not None:
            raise Failed(f"PostgreSQL did not start on port {port}. Its log, {log}, ends:\n{processes.tail(log)}")

    def _initialise(self, binaries: Path) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True, mode=0o700)
        if self._home() != self.directory:
            os.chmod(self._home(), 0o755)
        password = self._home() / "password"
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
            output.write(secrets.token_hex(16))
        self._own(self._data, password)
        # With a password, as the real ones: a wrong one must be refused here too.
        command = [str(binaries / "initdb"), "-D", str(self._data), "-U", "colloquy", "--auth=scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8"]
        if not self.durable:
            command.append("--no-sync")
        log = self.directory / "initdb.log"
        if processes.daemon(command, log, self.user, self._home()).wait() != 0:
            raise Failed(f"initdb failed. Its log, {log}, ends:\n{processes.tail(log)}")
        # Without this mark the directory is the remains of an initdb that was killed.
        (self._data / "complete").touch()
        self._own(self._data / "complete")

    def _ready(self) -> bool:
        ready = machine.postgres_bin() / "pg_isready"
        return subprocess.run([str(ready), "-q", "-h", "127.0.0.1", "-p", str(self.ports.postgres), "-t", "2"]).returncode == 0

    # -- PgBouncer -----------------------------------------------------------------------------------------------

    @property
    def _ini(self) -> Path:
        return self._home() / "pgbouncer.ini"

    def pgbouncer_pids(self) -> list[int]:
        ini = str(self._ini)
        return processes.matching(lambda arguments, _: arguments[0].endswith("pgbouncer") and ini in arguments)

    def _pgbouncer(self) -> None:
        # The databases of tests come and go; an idle pool must let go of its database soon.
        idle = 600 if self.durable else 5
        users = self._ini.with_name("users.txt")
        text = f"""\
; Written by scripts/lib/services.py. Transaction pooling, as in front of the real database.
[databases]
* = host=127.0.0.1 port={self.ports.postgres}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.ports.pgbouncer}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
; Roles that are made later log in too.
auth_user = colloquy
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
admin_users = colloquy
pool_mode = transaction
default_pool_size = 20
max_client_conn = 2000
server_idle_timeout = {idle}
server_reset_query_always = 0
ignore_startup_parameters = extra_float_digits,options
log_connections = 0
log_disconnections = 0
"""
        with os.fdopen(os.open(users, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
            output.write(f'"colloquy" "{self._password()}"\n')
        self._own(users)
        running = self.pgbouncer_pids()
        if running and processes.answers(self.ports.pgbouncer) and self._ini.read_text() == text:
            return
        processes.stop(running, signal.SIGTERM)
        self._free("pgbouncer", self.ports.pgbouncer)
        self._ini.write_text(text)
        self._own(self._ini)
        log = self.directory / "pgbouncer.log"
        child = processes.daemon([str(machine.pgbouncer()), str(self._ini)], log, self.user, self._home())
        if not processes.until(lambda: child.poll() is not None or processes.answers(self.ports.pgbouncer), 20) or child.poll() is not None:
            raise Failed(f"PgBouncer did not start on port {self.ports.pgbouncer}. Its log, {log}, ends:\n{processes.tail(log)}")

    # -- Redis ---------------------------------------------------------------------------------------------------

    def _redis_pids(self) -> list[int]:
        home = str(self._redis_home)
        # Redis writes its address over its arguments; where it stands tells whose it is.
        return processes.matching(lambda arguments, cwd: cwd == home and "redis-server" in arguments[0])

    @property
    def _redis_home(self) -> Path:
        return self.directory / "redis"

    def _redis(self) -> None:
        if not self.ports.redis:
            return
        running = self._redis_pids()
        if running and processes.answers(self.ports.redis):
            return
        processes.stop(running)
        self._free("redis", self.ports.redis)
        self._redis_home.mkdir(exist_ok=True)
        # Nothing in it is the record of anything, so nothing is saved.
        command = [str(machine.redis()), "--port", str(self.ports.redis), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]
        log = self.directory / "redis.log"
        child = processes.daemon(command, log, cwd=self._redis_home)
        if not processes.until(lambda: child.poll() is not None or processes.answers(self.ports.redis), 20) or child.poll() is not None:
            raise Failed(f"Redis did not start on port {self.ports.redis}. Its log, {log}, ends:\n{processes.tail(log)}")

    # -- Azurite -------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> Path:
        return self.directory / "azurite"

    def azurite_pids(self) -> list[int]:
        store = str(self._store)
        return processes.matching(lambda arguments, _: store in arguments and any(a.endswith("azurite.js") for a in arguments))

    def _azurite(self, entry: Path) -> None:
        ports = (self.ports.blob, self.ports.queue, self.ports.table)
        running = self.azurite_pids()
        if running and all(map(processes.answers, ports)):
            return
        processes.stop(running)
        for name, port in zip(("blob", "queue", "table"), ports):
            self._free(name, port)
        self._store.mkdir(exist_ok=True)
        command = [shutil.which("node"), str(entry), "--location", str(self._store), "--silent", "--skipApiVersionCheck", "--disableTelemetry",
                   "--blobPort", str(ports[0]), "--queuePort", str(ports[1]), "--tablePort", str(ports[2])]
        log = self.directory / "azurite.log"
        child = processes.daemon(command, log, cwd=self.directory)
        if not processes.until(lambda: child.poll() is not None or all(map(processes.answers, ports)), 60) or child.poll() is not None:
            raise Failed(f"Azurite did not start. Its log, {log}, ends:\n{processes.tail(log)}")

    # -- stopping ------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        # Azurite first answers a SIGTERM when its stores are written; PgBouncer's SIGTERM is "now".
        processes.stop(self.azurite_pids())
        processes.stop(self.pgbouncer_pids())
        processes.stop(self._redis_pids())
        postmaster = self.postmaster()
        if postmaster:
            # SIGINT is PostgreSQL's fast shutdown: open connections are cut, data is written.
            processes.stop([postmaster], signal.SIGINT, 30)
        processes.stop(self._postgres_pids(), signal.SIGQUIT)
