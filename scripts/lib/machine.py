"""What this machine has, and how what is missing gets onto it.

Nothing is installed that is already there, and whatever is installed is said first. Without the right to install,
the answer is one message that lists the packages.
"""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import versions

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / ".local" / "tools"
PINNED = versions.read()


class Missing(Exception):
    """Something is missing and could not be installed; the text says what to do."""


def say(text: str) -> None:
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def postgres_bin() -> Path | None:
    """The directory with `initdb`, `postgres` and `pg_ctl`. Debian keeps it off PATH; the oldest that will do wins,
    because the SQL here must not need more than PostgreSQL 15."""
    found = []
    for directory in [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr/pgsql-15").glob("bin")]:
        if (directory / "initdb").exists():
            version = directory.parent.name.removeprefix("pgsql-")
            if version.isdigit() and int(version) >= int(PINNED["POSTGRES_MIN"]):
                found.append((int(version), directory))
    if found:
        return min(found)[1]
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def pgbouncer() -> Path | None:
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def redis() -> Path | None:
    found = shutil.which("redis-server")
    return Path(found) if found else None


def chromium() -> str:
    """A Chromium that can be driven, installed if need be."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        install(["chromium"])
        found = shutil.which("chromium")
    if found is None:
        raise Missing("Chromium is needed and was not found after installing it.")
    return found


def postgres_user() -> str | None:
    """Whom PostgreSQL and PgBouncer run as when we are root, since neither runs as root. None: as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "colloquy"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    say("adding the system user `colloquy` (PostgreSQL refuses to run as root)")
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "colloquy"], check=True)
    return "colloquy"


def ensure_postgres() -> None:
    """PostgreSQL's server programs and PgBouncer."""
    packages = []
    if postgres_bin() is None:
        packages.append("postgresql")
    if pgbouncer() is None:
        packages.append("pgbouncer")
    install(packages)
    if postgres_bin() is None or pgbouncer() is None:
        raise Missing(f"PostgreSQL {PINNED['POSTGRES_MIN']} or newer and PgBouncer are needed and were not found after installing them.")


def ensure_redis() -> None:
    """Redis' server program, of the lowest version that will do or newer."""
    if redis() is None:
        install(["redis-server"])
    if redis() is None:
        raise Missing(f"Redis {PINNED['REDIS_MIN']} or newer is needed and was not found after installing it.")
    words = subprocess.run([str(redis()), "--version"], capture_output=True, text=True).stdout.split()
    version = next((word.removeprefix("v=") for word in words if word.startswith("v=")), "0")
    if [int(part) for part in version.split(".")[:2]] < [int(part) for part in PINNED["REDIS_MIN"].split(".")]:
        raise Missing(f"Redis {PINNED['REDIS_MIN']} or newer is needed; {redis()} is {version}.")


def ensure_azurite() -> Path:
    """Azurite's entry script, installed under .local/tools at the pinned version."""
    home = TOOLS / "azurite"
    entry = home / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    mark = home / "installed"
    lock = ROOT / "scripts" / "lib" / "azurite" / "package-lock.json"
    if not shutil.which("node") or not shutil.which("npm"):
        install(["nodejs", "npm"])
    if entry.exists() and mark.exists() and mark.read_bytes() == lock.read_bytes():
        return entry
    say(f"installing Azurite {PINNED['AZURITE']} with npm into {home.relative_to(ROOT)}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock.with_name(name), home / name)
    # Optional and install scripts are left out: they build a keychain binding that nothing here uses.
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    result = subprocess.run(command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if result.returncode != 0 or not entry.exists():
        raise Missing(f"`{' '.join(command)}` failed in {home}; npm's own message is above.")
    mark.write_bytes(lock.read_bytes())
    return entry


_updated = False


def install(packages: list[str]) -> None:
    """Installs Debian packages, without letting them start services of their own."""
    global _updated
    if not packages:
        return
    listed = " ".join(packages)
    if not shutil.which("apt-get"):
        raise Missing(f"Missing: {listed} (Debian's names). This is not an apt system: install them by hand, then run this again.")
    become = []
    if os.geteuid() != 0:
        # Only a sudo that will not hang on a password nobody can type.
        interactive = sys.stdin.isatty() and not os.environ.get("CI")
        sudo = shutil.which("sudo")
        if not sudo or (not interactive and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode != 0):
            raise Missing(f"Missing: {listed}. Without root this cannot install them; ask for: apt-get install {listed}")
        become = [sudo]
    say(f"installing with apt-get: {listed}")
    apt = [*become, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    policy = Path("/usr/sbin/policy-rc.d")
    quiet = not policy.exists()
    if quiet:
        # The packages would start a cluster on 5432 and a pooler on 6432; invoke-rc.d asks this file first.
        subprocess.run([*become, "sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' > {policy} && chmod 755 {policy}"], check=True)
    try:
        if not _updated:
            subprocess.run([*apt, "update"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
            _updated = True
        done = subprocess.run([*apt, "install", "-y", "--no-install-recommends", *packages], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    finally:
        if quiet:
            subprocess.run([*become, "rm", "-f", str(policy)], check=False)
    if done.returncode != 0:
        raise Missing(f"`apt-get install {listed}` failed; its own message is above.")
