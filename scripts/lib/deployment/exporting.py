"""The database written into the backup account, once a day: for what outlives PostgreSQL's own backups, or the server itself."""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from .az import Az, Changed, Failed, say
from .store import now
from .target import find


def main(description: str) -> int:
    from .commands import parser

    made = parser(description)
    made.add_argument("--database", default="colloquy", help="which one (default: %(default)s)")
    made.add_argument("--database-role", default="", help="who you are in PostgreSQL (default: {project}-{environment}-export)")
    made.add_argument("--keep-long", action="store_true", help="keep this one a year; else that is done on the first of a month alone")
    options = made.parse_args()
    az = Az(options.dry_run, tries=options.tries, wait=options.retry_wait)
    place = find(az, options.environment, "-")
    day = now().strftime("%Y-%m-%d")
    name = f"{day}/{options.database}.dump"
    account = str(place.outputs.get("EXPORTS_URI") or "https://<EXPORTS>.").removeprefix("https://").split(".", 1)[0]
    where = ["--account-name", account, "--container-name", "exports", "--auth-mode", "login"]
    long = options.keep_long or day.endswith("-01")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "export.dump"
        began = time.monotonic()
        if not az.dry:
            dump(az, options, str(place.outputs.get("DATABASE_HOST")), options.database_role or f"{place.project}-{place.name}-export", file)
        else:
            print(f"pg_dump --dbname {options.database} > <export>", flush=True)
        # Nobody can ask for the absence of a tag: what goes early says so (docs/decisions/0008).
        tags = [] if long else ["--tags", "keep=short"]
        try:
            az("storage", "blob", "upload", *where, "--name", name, "--file", str(file) if not az.dry else "<export>", "--if-none-match", "*", *tags)
        except Changed:
            say(f"{name} is there already: today's export was made.")
            return 0
        size = file.stat().st_size if not az.dry else 0
    say(f"{name}: {size / 1e6:.1f} MB in {time.monotonic() - began:.0f} s, kept {'a year' if long else '30 days'}")
    return 0


def dump(az: Az, options: argparse.Namespace, host: str, role: str, file: Path) -> None:
    token = az("account", "get-access-token", "--resource-type", "oss-rdbms", "--query", "accessToken")
    environment = os.environ | {"PGPASSWORD": token or "", "PGSSLMODE": os.environ.get("PGSSLMODE", "require"), "PGCONNECT_TIMEOUT": "15"}
    port = os.environ.get("PGPORT", "5432")
    address = ["--host", host, "--port", port, "--username", role, "--dbname", options.database]
    run(["pg_dump", *address, "--format", "custom", "--no-owner", "--no-privileges", "--file", str(file)], environment)
    # A file that cannot be read is no export.
    listed = run(["pg_restore", "--list", str(file)], environment)
    if "TABLE DATA" not in listed:
        raise Failed(f"The export of {options.database} has no table with rows: is it the right database? Nothing was kept.")


def run(command: list[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is missing: install PostgreSQL's client, of the server's version or newer.") from None
    if done.returncode != 0:
        raise Failed(f"{command[0]} failed: {done.stderr.strip()[-600:]}\nWhere the database is private, this runs in the management subnet; the role is made by scripts/bootstrap --only database.")
    return done.stdout
