"""`.local/env`: what scripts/dev generated, for the function app and for a second terminal (`source .local/env`).

Secrets are made once and kept; whoever edits one keeps the edit. Addresses follow the ports. A source or target added
to colloquy.toml gets its secret at the next start.
"""

import base64
import hashlib
import json
import os
import secrets
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Where scripts/dev keeps what it generates and stores.
LOCAL = Path(os.environ.get("COLLOQUY_DEV_HOME", ROOT / ".local"))

HEADER = """\
# Written by scripts/dev, for this machine only; not in git. Load it with: source .local/env
# Secrets are generated once. A value changed here stays, addresses excepted; a deleted line is generated anew.
"""


class Settings:
    def __init__(self, file: Path, app: Path):
        """`file`: .local/env. `app`: colloquy.toml."""
        self.file = file
        self.app = app
        self.values: dict[str, str] = self._read()

    def complete(self, addresses: dict[str, str], once: dict[str, str] | None = None) -> None:
        """Adds what is missing, with it what `once` names, sets the addresses, writes the file."""
        config = tomllib.loads(self.app.read_text())
        for name, source in config.get("sources", {}).items():
            # A sender that proves itself by a token from Entra shares no secret with us.
            if "entra" not in source.get("auth", {}):
                self._once(f"WEBHOOK_SECRET_{suffix(name)}", lambda: secret_of(source, name))
        for name in config.get("targets", {}):
            self._once(f"CALLBACK_SECRET_{suffix(name)}", standard_secret)
        self._once("ENCRYPTION_KEY", lambda: encoded(32))
        self._once("COLLOQUY_DEV_MODEL", lambda: "demo")
        self._once("COLLOQUY_DEV_API_KEY", lambda: "clq_" + secrets.token_urlsafe(32))
        self._api_keys()
        self._once("APP_ENV", lambda: "dev")
        self._once("FUNCTIONS_WORKER_RUNTIME", lambda: "custom")
        self._once("QUEUE_EVENTS", lambda: "events")
        self._once("QUEUE_JOBS", lambda: "jobs")
        self._once("QUEUE_CALLBACKS", lambda: "callbacks")
        for name, value in (once or {}).items():
            self._once(name, lambda value=value: value)
        self.values |= addresses
        # The name under which OpenAI's SDKs look for it.
        self.values["OPENAI_API_KEY"] = self.values["COLLOQUY_DEV_API_KEY"]
        self._write()

    def _once(self, name: str, make) -> None:
        # A further secret under a label will do as well.
        if not self.values.get(name) and not any(other.startswith(f"{name}__") for other in self.values):
            self.values[name] = make()

    def _api_keys(self) -> None:
        """The app knows the key by its hash, under the name `dev`; keys added by hand stay."""
        try:
            keys = [key for key in json.loads(self.values.get("AUTH_API_KEYS", "[]")) if key.get("name") != "dev"]
        except (ValueError, AttributeError):
            keys = []
        digest = hashlib.sha256(self.values["COLLOQUY_DEV_API_KEY"].encode()).hexdigest()
        keys.append({"name": "dev", "sha256": digest, "scopes": ["operator"], "owner": "dev"})
        self.values["AUTH_API_KEYS"] = json.dumps(keys, separators=(",", ":"))

    def _read(self) -> dict[str, str]:
        values = {}
        try:
            lines = self.file.read_text().splitlines()
        except FileNotFoundError:
            return values
        for line in lines:
            words = shlex.split(line, comments=True)
            for word in words[1:] if words[:1] == ["export"] else words:
                name, equals, value = word.partition("=")
                if equals:
                    values[name] = value
        return values

    def _write(self) -> None:
        lines = [f"export {name}={quoted(value)}\n" for name, value in sorted(self.values.items())]
        draft = self.file.with_name("env.new")
        # Readable by nobody else from its first byte, and never half written.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as output:
            output.write(HEADER + "".join(lines))
        draft.replace(self.file)


def quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def suffix(name: str) -> str:
    """As config/secrets.rs makes it: `event-grid` stands in a variable's name as `EVENT_GRID`."""
    return name.upper().replace("-", "_")


def encoded(length: int) -> str:
    return base64.b64encode(secrets.token_bytes(length)).decode()


def standard_secret() -> str:
    """Standard Webhooks: base64 of 24 to 64 bytes behind `whsec_`."""
    return "whsec_" + encoded(32)


def secret_of(source: dict, name: str) -> str:
    """A secret of the shape that senders of this kind use."""
    kind, auth = source.get("kind"), source.get("auth")
    if kind == "stripe":
        return "whsec_" + secrets.token_hex(24)
    if kind == "standard-webhooks":
        return standard_secret()
    # Azure DevOps sends Basic unless colloquy.toml says otherwise; the secret is user and password in one.
    if "basic" in (auth or {}) or (not auth and kind in ("basic", "azure-devops")):
        return f"{name}:{secrets.token_hex(16)}"
    # Letters and digits: some of these stand in a URL.
    return secrets.token_hex(32)
