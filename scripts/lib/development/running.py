"""What runs, as one thing that can be brought up and down."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import machine
import processes
from services import Failed, Ports, Services
from settings import LOCAL, Settings

ROOT = machine.ROOT
DIRECTORY = LOCAL / "dev"
CALLBACKS = DIRECTORY / "callbacks.jsonl"
CONFIG = DIRECTORY / "colloquy.toml"
HERE = Path(__file__).resolve().parent
ADDITIONS = HERE / "additions.toml"
PROVIDER = str(HERE / "provider.py")
CONSUMER = str(HERE.parent / "consumer.py")
DEFAULTS = {"PORT": 7071, "SERVER_PORT": 8080, "CONSUMER_PORT": 7079, "PROVIDER_PORT": 7078, "POSTGRES_PORT": 54329, "PGBOUNCER_PORT": 64329,
            "BLOB_PORT": 10000, "QUEUE_PORT": 10001, "TABLE_PORT": 10002}
# What waits for a provider is a dead letter within a minute, and a provider that is back is soon found: who tries it out watches.
PACE = {"JOB_MAX_AGE": "30s", "OUTAGE_RETRY": "5s", "LLM_BREAKER_PAUSE": "2s"}


class Refused(Exception):
    """Something the developer has to settle first; the text says what."""


def say(text: str) -> None:
    print(f"[dev] {text}", flush=True)


def port(name: str) -> int:
    text = os.environ.get(f"COLLOQUY_DEV_{name}", str(DEFAULTS[name]))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Refused(f"COLLOQUY_DEV_{name} is {text!r}; expected a port such as {DEFAULTS[name]}.")
    return int(text)


def target(name: str) -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / name


def written_by_hand() -> Path:
    """The `colloquy.toml` that somebody edits. A terminal with .local/env loaded names ours, which is made of it."""
    named = ROOT / os.environ.get("COLLOQUY_CONFIG", "colloquy.toml")
    return ROOT / "colloquy.toml" if named == CONFIG else named


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


class Development:
    def __init__(self):
        names = {name: f"COLLOQUY_DEV_{name.upper()}_PORT" for name in ("postgres", "pgbouncer", "blob", "queue", "table")}
        ports = Ports(*(port(f"{name.upper()}_PORT") for name in names))
        self.services = Services(DIRECTORY, ports, settings=names)
        self.port, self.server_port = port("PORT"), port("SERVER_PORT")
        self.consumer_port, self.provider_port = port("CONSUMER_PORT"), port("PROVIDER_PORT")
        self.url = f"http://localhost:{self.port}"
        self.server_url = f"http://localhost:{self.server_port}/v1"
        self.settings = Settings(LOCAL / "env", written_by_hand())
        self.children: dict[str, subprocess.Popen] = {}

    # -- settings ------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Writes `.local/env`, and the `colloquy.toml` in force. Raises `ValueError` if the one written by hand is no TOML."""
        self.settings.complete({
            "DATABASE_URL": self.services.url("colloquy", pooled=True),
            "DATABASE_DIRECT_URL": self.services.url("colloquy", pooled=False),
            "AzureWebJobsStorage": self.services.storage(),
            "CONSUMER_URL": f"http://127.0.0.1:{self.consumer_port}/callbacks",
            "COLLOQUY_URL": self.url,
            "COLLOQUY_SERVER_URL": self.server_url,
            "COLLOQUY_CONFIG": str(CONFIG),
            "COLLOQUY_DEV_PROVIDER_URL": f"http://127.0.0.1:{self.provider_port}/v1",
            # What OpenAI's SDKs read by themselves.
            "OPENAI_BASE_URL": self.server_url,
        }, once=PACE)
        self._write_config()
        if shutil.which("func"):
            # Core Tools read their settings from here and refuse to start without.
            file = ROOT / "local.settings.json"
            values = {"IsEncrypted": False, "Values": self.settings.values, "Host": {"LocalHttpPort": self.port}}
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as output:
                json.dump(values, output, indent=2)

    def _write_config(self) -> None:
        """What was written by hand, with our additions behind it, so that lines keep their numbers in what is said of them."""
        text = self.settings.app.read_text()
        config = tomllib.loads(text)
        fits = "stripe" in config.get("sources", {}) and "consumer" in config.get("targets", {})
        taken = "stand-in" in {**config.get("deployments", {}), **config.get("models", {})}
        draft = CONFIG.with_suffix(".new")
        draft.write_text(text + ADDITIONS.read_text() if fits and not taken else text)
        draft.replace(CONFIG)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.settings.values}

    # -- up ------------------------------------------------------------------------------------------------------

    def clean_up_after_a_kill(self) -> None:
        """What a killed scripts/dev may have left: a host, a server, a consumer, a provider. Their ports must be free or ours."""
        ours = processes.matching(self.is_ours)
        server = processes.matching(lambda arguments, _: str(ROOT / "conversation-server") in arguments)
        ours += [pid for pid in server if processes.setting(pid, "PORT") == str(self.server_port)]
        processes.stop(ours)
        for setting, number in (("COLLOQUY_DEV_PORT", self.port), ("COLLOQUY_DEV_SERVER_PORT", self.server_port),
                                ("COLLOQUY_DEV_CONSUMER_PORT", self.consumer_port), ("COLLOQUY_DEV_PROVIDER_PORT", self.provider_port)):
            if processes.answers(number):
                raise Refused(f"Port {number} is in use by a process that is not ours. Stop it, or choose another port with {setting}.")

    def is_ours(self, arguments: list[str], cwd: str) -> bool:
        """One of those started below. Others run from the same clone: tests, and what a developer starts by hand."""
        def holds(*part: str) -> bool:
            return any(arguments[at:at + len(part)] == list(part) for at in range(len(arguments)))

        port = holds("--port", str(self.port))
        devhost = holds(str(target("devhost")), "start") and holds("--root", str(ROOT)) and port
        func = cwd == str(ROOT) and "start" in arguments and port and any(a.endswith(("/func", "func.dll")) for a in arguments)
        return devhost or func or holds(CONSUMER, str(self.consumer_port), str(CALLBACKS)) or holds(PROVIDER, str(self.provider_port))

    def create_database(self) -> None:
        createdb = machine.postgres_bin() / "createdb"
        address = f"--maintenance-db={self.services.url('postgres', pooled=False)}"
        made = subprocess.run([createdb, address, "colloquy"], capture_output=True, text=True)
        if made.returncode != 0 and "already exists" not in made.stderr:
            raise Failed(f"createdb failed: {made.stderr.strip()}")

    def build(self) -> bool:
        """The console first: the server's build embeds it. Without Node that step says so and is done."""
        return self._run([ROOT / "scripts" / "console", "build"]) and self._run([ROOT / "scripts" / "build"])

    def migrate(self) -> bool:
        return self._run([ROOT / "function-handlers", "migrate"])

    def _run(self, command: list[Path | str]) -> bool:
        """Runs to the end; if we are told to stop meanwhile, it goes with everything it started."""
        child = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            return child.wait() == 0
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise

    def start_consumer(self) -> None:
        CALLBACKS.unlink(missing_ok=True)
        self._start_helper("consumer", "consumer of callbacks", [CONSUMER, str(self.consumer_port), str(CALLBACKS)], self.consumer_port)

    def start_provider(self) -> None:
        self._start_helper("provider", "stand-in for a provider", [PROVIDER, str(self.provider_port)], self.provider_port)

    def _start_helper(self, name: str, what: str, command: list[str], port: int) -> None:
        self._child(name, [sys.executable, *command])
        if not processes.until(lambda: processes.answers(port), 10):
            raise Failed(f"The {what} does not listen on port {port}; its message is above.")

    def start_app(self) -> bool:
        """Starts the host and waits for the app's first answer."""
        if shutil.which("func"):
            command = ["func", "start", "--port", str(self.port)]
        else:
            command = [str(target("devhost")), "start", "--root", str(ROOT), "--port", str(self.port)]
        app = self._child("app", command)
        alive = f"http://127.0.0.1:{self.port}/api/health/live"
        processes.until(lambda: app.poll() is not None or answers(alive), 60)
        if app.poll() is not None:
            say(f"the function app ended with code {app.returncode}; what it said is above.")
            return False
        return answers(alive)

    def start_server(self) -> bool:
        """Starts the conversation server and waits for its first answer."""
        server = self._child("server", [str(ROOT / "conversation-server")], {"PORT": str(self.server_port)})
        alive = f"http://127.0.0.1:{self.server_port}/health/live"
        processes.until(lambda: server.poll() is not None or answers(alive), 30)
        if server.poll() is not None:
            say(f"the conversation server ended with code {server.returncode}; what it said is above.")
            return False
        return answers(alive)

    def _child(self, name: str, command: list[str], settings: dict[str, str] | None = None) -> subprocess.Popen:
        # In a session of its own: Ctrl-C reaches scripts/dev alone, which then stops everything in order. And gone
        # with scripts/dev, should that be killed.
        mortal = [shutil.which("setpriv"), "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        environment = {**self.environment, **(settings or {})}
        child = subprocess.Popen([*mortal, *command], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        self.children[name] = child
        return child

    # -- down ----------------------------------------------------------------------------------------------------

    def stop_child(self, name: str) -> None:
        child = self.children.pop(name, None)
        if child is None:
            return
        child.terminate()
        try:
            # Longer than the server gives its turns (DRAIN).
            child.wait(40)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def down(self) -> None:
        for name in ("server", "app", "provider", "consumer"):
            self.stop_child(name)
        self.services.down()
