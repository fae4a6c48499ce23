"""The packages of a release, as scripts/package leaves them, and whether they can run."""

import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .az import Failed
from .target import ROOT

FOLDER = ROOT / "target" / "packages"
# What must be at the root of each, and which of it must be executable.
HANDLERS = ("host.json", "colloquy.toml", "function-handlers", "migrate/function.json", "receive-webhook/function.json")
SERVER = ("colloquy.toml", "conversation-server")
CONSOLE = ("index.html", "staticwebapp.config.json")


@dataclass
class Release:
    handlers: Path
    server: Path
    # Where the console is on Static Web Apps.
    console: Path | None = None

    @property
    def names(self) -> dict[str, str]:
        """What tells one release from another."""
        return {"handlers": self.handlers.name, "server": self.server.name}

    @property
    def all_names(self) -> dict[str, str]:
        return self.names | ({"console": self.console.name} if self.console else {})


def find(environment: str, handlers: str, server: str, commit: str, console: str | None) -> Release:
    """`console`: None where there is none to deploy."""
    return Release(
        one(environment, "handlers", handlers, commit, HANDLERS, "function-handlers"),
        one(environment, "server", server, commit, SERVER, "conversation-server"),
        None if console is None else one(environment, "console", console, commit, CONSOLE, None),
    )


def one(environment: str, kind: str, given: str, commit: str, wanted: tuple[str, ...], program: str | None) -> Path:
    """`program`: what must be executable in it, if anything."""
    if given:
        path = Path(given)
        if not path.is_file():
            raise Failed(f"There is no package {given}.")
    else:
        found = sorted(path for path in FOLDER.glob("*.zip") if kind in path.name and environment in path.name and commit in path.name)
        if len(found) != 1:
            there = "none" if not found else ", ".join(path.name for path in found)
            raise Failed(
                f"target/packages/ has {there} of the {kind} for {environment}{f' of commit {commit}' if commit else ''}; one is needed. "
                f"Build with scripts/package {environment}, or name one with --{kind}-package."
            )
        path = found[0]
    # Artifacts are named by environment and commit: what was built for one is not taken for another.
    if environment not in path.name or commit not in path.name:
        raise Failed(f"{path.name} is not named for {environment}{f' and commit {commit}' if commit else ''}: it was built for something else.")
    try:
        with zipfile.ZipFile(path) as package:
            there = {entry.filename: entry.external_attr >> 16 for entry in package.infolist()}
    except zipfile.BadZipFile:
        raise Failed(f"{path.name} is not a zip, or it was cut. Build it again.") from None
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise Failed(f"{path.name} lacks {', '.join(lacking)} at its root. Build it with scripts/package {environment}.")
    if program and not there[program] & stat.S_IXUSR:
        raise Failed(f"{path.name}: {program} is not executable in the zip; the host could not start it. Build it with scripts/package {environment}.")
    return path
