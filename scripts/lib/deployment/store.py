"""What outlives one run: packages, who deployed what and when, and how far a deployment came.

A storage account of its own in `rg-{project}-deploy`, reached with Entra tokens from any network: it holds programs, and
no data of anybody. A state is written only over the one that was read (ETag), so two runs cannot both begin.
"""

import datetime
import hashlib
import json
import re
import tempfile
from pathlib import Path

from .az import Az, Beside, Changed, Failed, Missing, Refused
from .target import Environment

CONTAINER = "releases"
# What a dry run takes for the state: a release before, which the slot holds.
ASSUMED = {name: {"handlers": f"<{name.upper()} HANDLERS>.zip", "server": f"<{name.upper()} SERVER>.zip"} for name in ("current", "previous")}
ASSUMED["slot"] = {"server": ASSUMED["previous"]["server"]}
# No account of that name, or no container in it.
ABSENT = re.compile("ContainerNotFound|AccountNotFound|resolve|Name or service not known|getaddrinfo")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def stamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)


def account_name(project: str, subscription: str) -> str:
    """Unique in all of Azure, and always the same for a project in a subscription."""
    return f"{project}rel{hashlib.sha256(f'{subscription}/{project}'.encode()).hexdigest()[:8]}"[:24]


class Store:
    def __init__(self, az: Az, environment: Environment, subscription: str):
        self.az = az
        self.environment = environment.name
        self.account = account_name(environment.project, subscription)
        self.state: dict = {}
        self._etag = ""

    def _blob(self, *arguments: str, assume=None, again: bool = True):
        return self.az("storage", "blob", *arguments, "--account-name", self.account, "--container-name", CONTAINER, "--auth-mode", "login", assume=assume, again=again)

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> str:
        return f"{self.environment}/state.json"

    def read(self) -> dict:
        """`current`, `previous` and `slot` are releases; `deploying` is the one under way, or was when its run was cut."""
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "state.json"
            try:
                # The ETag first: a change between the two makes the write fail rather than overwrite.
                shown = self._blob("show", "--name", self._state, assume={"properties": {"etag": "<ETAG>"}})
                self._blob("download", "--name", self._state, "--file", str(file) if not self.az.dry else "<state>")
                self._etag = shown["properties"]["etag"]
                self.state = json.loads(file.read_text()) if not self.az.dry else ASSUMED
            except Refused as refused:
                if ABSENT.search(refused.said):
                    raise Failed(f"The store of releases ({self.account}) is not there. Run scripts/bootstrap {self.environment} --only identity.") from None
                if not isinstance(refused, Missing):
                    raise
                self.state, self._etag = {}, ""
        return self.state

    def write(self, **changes) -> None:
        """Changes the state, if nobody else has since it was read."""
        state = {**self.state, **changes, "format": 1}
        state = {name: value for name, value in state.items() if value is not None}
        condition = ["--if-match", self._etag] if self._etag else ["--if-none-match", "*"]
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "state.json"
            file.write_text(json.dumps(state, indent=2) + "\n")
            shown = str(file) if not self.az.dry else "<state>"
            try:
                made = self._blob("upload", "--name", self._state, "--file", shown, "--overwrite", "true", *condition, assume={"etag": "<ETAG>"}, again=False)
            except Changed:
                raise Beside(f"Somebody else is deploying to {self.environment}: the state changed since it was read. Look with scripts/deploy {self.environment} --status.") from None
        self.state, self._etag = state, (made or {}).get("etag", "")

    # -- packages ------------------------------------------------------------------------------------------------

    def keep(self, package: Path) -> None:
        """Puts a package where a way back finds it. One that is there already is the same: its name has its commit."""
        name = f"{self.environment}/{package.name}"
        try:
            self._blob("upload", "--name", name, "--file", str(package), "--if-none-match", "*")
        except Changed:
            pass

    def fetch(self, name: str, place: Path) -> Path:
        file = place / name
        try:
            self._blob("download", "--name", f"{self.environment}/{name}", "--file", str(file) if not self.az.dry else name)
        except Missing:
            raise Failed(f"The package {name} is no longer kept. Deploy another: build it from its commit with scripts/package {self.environment}.") from None
        return file

    def prune(self, keep: int) -> None:
        """Deletes all packages but the newest `keep` of each kind, and never one that the state names."""
        listed = self._blob("list", "--prefix", f"{self.environment}/", "--query", "[?ends_with(name, '.zip')].{name: name, at: properties.creationTime}", assume=[]) or []
        named = {name for release in (self.state.get(key) or {} for key in ("current", "previous", "slot", "deploying")) for name in release.values() if isinstance(name, str)}
        kinds: dict[str, list[dict]] = {}
        for blob in sorted(listed, key=lambda blob: blob["at"], reverse=True):
            kinds.setdefault(next((kind for kind in ("server", "console") if kind in blob["name"]), "handlers"), []).append(blob)
        for blobs in kinds.values():
            for blob in blobs[keep:]:
                if blob["name"].split("/", 1)[1] not in named:
                    self._blob("delete", "--name", blob["name"])

    # -- log -----------------------------------------------------------------------------------------------------

    def log(self, what: str, who: str, result: str, **details) -> None:
        """One blob an entry, never written over: who did what when, and how it ended."""
        entry = {"at": stamp(now()), "environment": self.environment, "what": what, "who": who, "result": result, **details}
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "entry.json"
            file.write_text(json.dumps(entry, indent=2) + "\n")
            name = f"{self.environment}/log/{entry['at'].replace(':', '')}-{what}-{hashlib.sha256(file.read_bytes()).hexdigest()[:6]}.json"
            self._blob("upload", "--name", name if not self.az.dry else f"{self.environment}/log/<TIME>-{what}.json", "--file", str(file) if not self.az.dry else "<entry>", "--overwrite", "true")

    def entries(self, most: int) -> list[dict]:
        names = self._blob("list", "--prefix", f"{self.environment}/log/", "--query", "[].name", assume=[]) or []
        found = []
        with tempfile.TemporaryDirectory() as place:
            for name in sorted(names)[-most:]:
                file = Path(place) / "entry.json"
                self._blob("download", "--name", name, "--file", str(file), "--overwrite", "true")
                found.append(json.loads(file.read_text()))
        return found
