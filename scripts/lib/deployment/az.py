"""Azure's command line, and a look at an address: the only two ways out of these scripts.

With `dry` both print what they would do and do nothing; every question then has the answer its caller assumes.
"""

import base64
import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field

THROTTLED = re.compile(r"\b429\b|TooManyRequests|throttl", re.I)
CONFLICT = re.compile(r"\b409\b|\bConflict\b|AnotherOperationInProgress|deployment in progress|being updated", re.I)
# An identity or a role that was just made and is not known everywhere yet.
REPLICATING = re.compile(r"PrincipalNotFound|RoleDefinitionDoesNotExist|Role '[^']*' doesn't exist")
MISSING = re.compile(r"\b404\b|ResourceNotFound|ResourceGroupNotFound|BlobNotFound|DeploymentNotFound|could not be found|not found|does not exist", re.I)
CHANGED = re.compile(r"\b412\b|ConditionNotMet|BlobAlreadyExists", re.I)


class Failed(Exception):
    """Something did not work out; the text says what to do next."""


class Refused(Failed):
    """An answer of Azure that was not what was asked for. `said` is its own text."""

    def __init__(self, command: str, said: str):
        super().__init__(f"`{command}` failed:\n{said.strip()}")
        self.said = said


class Missing(Refused):
    """What was asked for is not there."""


class Changed(Refused):
    """Somebody else changed it meanwhile."""


class Beside(Failed):
    """Another run is at work: whoever meets it leaves everything as it is."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Az:
    dry: bool = False
    # Tries of one call that is throttled or meets another operation, and the wait before the second; it doubles.
    tries: int = 6
    wait: float = 10.0
    # For addresses.
    patience: float = 20.0
    _checked: bool = field(default=False, repr=False)

    def __call__(self, *arguments: str, assume=None, again: bool = True):
        """Runs `az …` and reads its JSON. `assume`: the answer in a dry run. `again`: whether a conflict or throttling is
        waited out."""
        command = ["az", *arguments, "--output", "json", "--only-show-errors"]
        shown = shlex.join(["az", *arguments])
        if self.dry:
            print(shown, flush=True)
            return assume
        if not self._checked:
            if not shutil.which("az"):
                raise Failed("Azure's command line is missing: install it (https://aka.ms/azure-cli), then `az login`.")
            self._checked = True
        for attempt in range(1, self.tries + 1):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return self._read(done.stdout, shown)
            said = done.stderr or done.stdout
            if CHANGED.search(said):
                raise Changed(shown, said)
            if "ObjectIsDeletedButRecoverable" in said or "is currently in a deleted but recoverable state" in said:
                raise Failed(f"`{shown}`: something of that name was deleted and can be recovered; nothing else can have its name. Recover it (`az keyvault secret recover`), then run this again.")
            waits = again and (THROTTLED.search(said) or CONFLICT.search(said) or REPLICATING.search(said))
            if waits and attempt < self.tries:
                pause = self.wait * 2 ** (attempt - 1)
                say(f"  {shown}: {first_line(said)}; again in {pause:g} s ({attempt} of {self.tries})")
                time.sleep(pause)
                continue
            if "az login" in said:
                raise Failed(f"`{shown}`: az is not signed in. Run `az login` (a pipeline: its login step), then this again.")
            if "AuthorizationPermissionMismatch" in said:
                raise Failed(f"`{shown}`: no right to these blobs. A role given by scripts/bootstrap takes some minutes to arrive; else ask for Storage Blob Data Contributor on the account.")
            if not waits and MISSING.search(said):
                raise Missing(shown, said)
            raise Refused(shown, said)
        raise AssertionError("every try ends above")

    @staticmethod
    def _read(text: str, shown: str):
        if not text.strip():
            return None
        try:
            return json.loads(text)
        except ValueError:
            raise Failed(f"`{shown}` did not answer with JSON: {first_line(text)}") from None

    def get(self, url: str, key: str | None = None, body: dict | None = None) -> tuple[int, str]:
        """Status and text of a GET, or of a POST with a body; status 0 and the reason if nobody answers. In a dry run: 200."""
        if self.dry:
            print(f"{'POST' if body else 'GET'} {url}", flush=True)
            return 200, "{}"
        headers = {"user-agent": "colloquy-deploy"} | ({"authorization": f"Bearer {key}"} if key else {}) | ({"content-type": "application/json"} if body else {})
        request = urllib.request.Request(url, headers=headers, data=json.dumps(body).encode() if body else None)
        try:
            with urllib.request.urlopen(request, timeout=self.patience) as answer:
                return answer.status, answer.read(100_000).decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read(100_000).decode(errors="replace")
        except (OSError, ValueError) as error:
            return 0, str(error)

    def upgrade(self, url: str, key: str) -> int:
        """Status of a WebSocket's handshake: 101 if it is one. In a dry run: 101."""
        if self.dry:
            print(f"GET {url} (WebSocket)", flush=True)
            return 101
        address = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = kind(address.netloc, timeout=self.patience)
        headers = {
            "authorization": f"Bearer {key}", "user-agent": "colloquy-deploy", "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
            "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
        }  # fmt: skip
        try:
            connection.request("GET", address.path, headers=headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def sleep(self, seconds: float) -> None:
        if not self.dry:
            time.sleep(seconds)

    def rest(self, method: str, url: str, body: dict | None = None, *extra: str, assume=None):
        """Azure's management interface, for what the command line has no command for."""
        arguments = ["rest", "--method", method, "--url", url, *extra]
        if body is not None:
            arguments += ["--body", json.dumps(body)]
        return self(*arguments, assume=assume)


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "(nothing)")[:300]
