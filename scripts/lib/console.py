"""The console in web/: its packages, its build, its tests. Without Node there is no console, and nothing else is missing."""

import shutil
import subprocess
from pathlib import Path

import machine

WEB = machine.ROOT / "web"
PAGE = WEB / "dist" / "index.html"
SOURCES = ("src", "public", "tools", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts",
           "staticwebapp.config.json")


class Failed(Exception):
    """A step of the console's build or tests failed; what it said is above."""


def node_is_there() -> bool:
    """Node and npm, in a version that the build knows."""
    if not shutil.which("node") or not shutil.which("npm"):
        return False
    words = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip().removeprefix("v").split(".")
    return len(words) == 3 and words[0].isdigit() and (int(words[0]), int(words[1])) >= (20, 19)


def install() -> None:
    """`npm ci`, once for each change of the lock file."""
    lock, mark = WEB / "package-lock.json", WEB / "node_modules" / ".installed"
    if mark.exists() and mark.read_bytes() == lock.read_bytes():
        return
    machine.say("installing the console's packages with npm into web/node_modules")
    npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    mark.write_bytes(lock.read_bytes())


def npm(*arguments: str, environment: dict[str, str] | None = None) -> None:
    command = ["npm", *arguments]
    if subprocess.run(command, cwd=WEB, stdin=subprocess.DEVNULL, env=environment).returncode != 0:
        raise Failed(f"`{' '.join(command)}` failed in web/; what it said is above.")


def stale() -> bool:
    """Whether something was saved since the console was built. What was not is not built again: the server embeds the
    files, and new ones cost it a build."""
    if not PAGE.exists():
        return True
    built = PAGE.stat().st_mtime_ns
    return any(path.stat().st_mtime_ns > built for path in sources())


def sources() -> list[Path]:
    named = [WEB / name for name in SOURCES]
    return [path for name in named for path in ([name] if name.is_file() else name.rglob("*")) if path.is_file()]


def build() -> None:
    """Packages and build, as far as needed."""
    install()
    if stale():
        npm("run", "--silent", "build")
