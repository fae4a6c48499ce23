"""What the tests of scripts/deploy and its kin stand on: the stand-in for az, and both apps as they would answer."""

import json
import os
import subprocess
import tempfile
import threading
import unittest
import zipfile
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stand_in import StandIn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What the handlers' package starts to migrate the slot's database.
PROGRAM = '#!/bin/sh\necho "$* $DATABASE_DIRECT_URL" >> "$HOME/migrated"\n[ ! -e "$HOME/cannot-migrate" ]\n'
FAST = ["--smoke-minutes", "0.01", "--smoke-interval", "0.05", "--migrate-minutes", "0.02", "--watch-minutes", "0.002", "--watch-interval", "0.04", "--retry-wait", "0.01", "--tries", "3"]


class World(unittest.TestCase):
    """One environment as its infrastructure was deployed, without any release."""

    environment = "prod"
    mark = 0

    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.home = Path(place.name)
        (self.home / "blobs").mkdir()
        self.azure = StandIn(self.home / "blobs")
        self.addCleanup(self.azure.close)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), app(self))
        self.server.daemon_threads = True
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.change(
            outputs={
                "AZURE_RESOURCE_GROUP": f"rg-colloquy-{self.environment}", "HANDLERS_NAME": "handlers-1", "SERVER_NAME": "server-1", "HANDLERS_URL": f"{self.url}/handlers",
                "SERVER_URL": f"{self.url}/production", "EDGE_URL": "", "VAULT_URI": "https://kv.vault.azure.net/", "DATABASE_HOST": "127.0.0.1",
                "DATABASE_ROLES": [f"colloquy-{self.environment}-handlers", f"colloquy-{self.environment}-server"], "API_URL": f"{self.url}/production",
                **({"CONSOLE_NAME": "console-1", "CONSOLE_URL": f"{self.url}/console"} if self.environment == "prod" else {}),
            },
            production="", slot="", handlers="", swaps=0, swapped=None, migrated=0, fail=[], unhealthy=[], unhealthy_in={}, ill_after=None, broken=False, websockets=True, metrics={}, telemetry={}, references={"ENCRYPTION_KEY": "Resolved"},
            sign_in=[200, {"sign_in": None}], secrets={}, versions=[], settings={}, providers=[], definitions=[], assignments={}, restrictions={}, routes={}, infrastructure=0, now=0, servers={"psql-1": ""}, machines=[], ran="", machine_says="colloquy: roles are there",
            firewall={"location": "global", "sku": {"name": "Standard_AzureFrontDoor"}, "properties": {"customRules": {"rules": [{"name": "RatePerAddress", "priority": 100}]}}},
        )  # fmt: skip

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> dict:
        with self.azure.lock:
            return deepcopy(self.azure.state)

    def change(self, **values) -> None:
        with self.azure.lock:
            self.azure.state.update(values)

    def fail(self, match: str, says: str = "", **more) -> None:
        self.change(fail=[*self.state["fail"], {"match": match, "says": says, **more}])

    def calls(self) -> list[str]:
        return list(self.azure.calls)

    def kept(self) -> dict:
        """The deployments' own state in the store."""
        return json.loads((self.home / "blobs" / f"{self.environment}⁄state.json").read_text())

    def log(self) -> list[dict]:
        names = sorted(path for path in (self.home / "blobs").iterdir() if "⁄log⁄" in path.name)
        return sorted((json.loads(path.read_text()) for path in names), key=lambda entry: entry["at"])

    # -- running -------------------------------------------------------------------------------------------------

    def packages(self, name: str) -> list[str]:
        made = []
        for kind, program, contents in (
            ("handlers", "function-handlers", {"host.json": "{}", "colloquy.toml": "", "migrate/function.json": "{}", "receive-webhook/function.json": "{}"}),
            ("server", "conversation-server", {"colloquy.toml": ""}),
        ):
            path = self.home / f"{kind}-{self.environment}-{name}.zip"
            with zipfile.ZipFile(path, "w") as package:
                for file, text in contents.items():
                    package.writestr(file, text)
                entry = zipfile.ZipInfo(program)
                entry.external_attr = 0o100755 << 16
                package.writestr(entry, PROGRAM)
            made += [f"--{kind}-package", str(path)]
        if self.environment == "prod":
            path = self.home / f"console-{self.environment}-{name}.zip"
            with zipfile.ZipFile(path, "w") as package:
                package.writestr("index.html", f"<html>\n  <head>\n    <title>{name}</title>\n  </head>\n</html>\n")
                package.writestr("staticwebapp.config.json", json.dumps({"globalHeaders": {"content-security-policy": "connect-src 'self'; base-uri 'none'"}}))
            made += ["--console-package", str(path)]
        return made

    def run_script(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("COLLOQUY_", "GITHUB_", "BUILD_", "AZURE_", "HANDLERS_"))}
        clean |= {"PATH": f"{HERE}:{os.environ['PATH']}", "AZ_STAND_IN_PORT": str(self.azure.port), "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"} | environment
        return subprocess.run([ROOT / "scripts" / script, self.environment, *arguments], env=clean, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def deploy(self, name: str, *arguments: str) -> subprocess.CompletedProcess:
        return self.run_script("deploy", *self.packages(name), "--slot-url", f"{self.url}/slot", *FAST, *arguments)

    def rollback(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run_script("rollback", "--slot-url", f"{self.url}/slot", *FAST, *arguments)

    def deployed(self, name: str) -> None:
        done = self.deploy(name)
        # Calls from here on are those of what is tried next.
        self.mark = len(self.azure.calls)
        self.assertEqual(0, done.returncode, done.stderr)

    def went_back(self, done, why: str) -> None:
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn(why, done.stderr)
        self.assert_runs("one")
        self.assertIn("two", self.state["slot"])
        self.assertEqual("server-prod-one.zip", self.kept()["current"]["server"])
        self.assertNotIn("deploying", self.kept())
        self.assertEqual(("rollback", "succeeded"), (self.log()[-1]["what"], self.log()[-1]["result"]))
        self.assertIn(why, self.log()[-1]["reason"])

    def assert_runs(self, name: str) -> None:
        self.assertEqual((f"server-{self.environment}-{name}.zip", f"handlers-{self.environment}-{name}.zip"), (self.state["production"], self.state["handlers"]))


def app(world: World) -> type:
    """Both apps and the slot: each is as well as the package it runs."""

    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = world.state
            which = self.path.split("/")[1]
            runs, check = state.get(which, ""), self.path.rsplit("/", 1)[-1]
            ill = [*state["unhealthy"], *([state["unhealthy_in"][which]] if which in state["unhealthy_in"] else [])]
            if state["ill_after"] and any(state["ill_after"]["match"] in call and at > world.mark for at, call in enumerate(world.calls())):
                ill += [f"server-{world.environment}-{state['ill_after']['who']}"] if which == "production" else []
            if which == "console":
                return self.say(200, (world.home / "served" / "index.html").read_text())
            if check == "console.json":
                return self.say(state["sign_in"][0], state["sign_in"][1])
            if self.headers.get("upgrade") == "websocket":
                return self.say(101 if state["websockets"] else 400, {})
            healthy = runs and not any(part in runs for part in ill)
            if check == "status":
                return self.say(200 if self.headers.get("authorization") else 401, {"version": "0.1.0", "environment": "test", "deployments": [{"name": "main", "breaker": "open" if state["broken"] else "closed"}]})
            self.say(200 if healthy else 503, {"checks": [{"name": "database", "ok": bool(healthy)}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.say(503 if world.state["broken"] else 200, {})

        def say(self, status: int, body: dict | str) -> None:
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_) -> None:
            pass

    return App
