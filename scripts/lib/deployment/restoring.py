"""PostgreSQL restored beside the one that runs, to a moment, with the rows of both counted."""

import argparse
import datetime
import os
import subprocess
import time

from .az import Az, Failed, Missing, say
from .releasing import open_deployment
from .store import now, parse, stamp

OBJECTIVE = 3600
COUNTS = """select string_agg(format('select %L, count(*) from %I', relname, relname), ' union all ' order by relname)
from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"""


def main(description: str) -> int:
    from .commands import parser

    made = parser(description)
    made.add_argument("--at", default="", metavar="TIME", help="to which moment, such as 2026-11-27T10:31:00Z (default: ten minutes ago)")
    made.add_argument("--name", default="", help="name of the new server (default: the old one's, and -restored)")
    made.add_argument("--database", default="colloquy", help="whose rows are counted (default: %(default)s)")
    made.add_argument("--database-role", default="", help="who you are in PostgreSQL (default: {project}-{environment}-deploy)")
    made.add_argument("--equal", action="store_true", help="fail unless all tables have as many rows as where it came from: for a drill without traffic")
    made.add_argument("--drop", action="store_true", help="delete the restored server, and do nothing else")
    options = made.parse_args()
    deployment = open_deployment(options)
    az, place = deployment.az, deployment.environment
    source = str(place.outputs.get("DATABASE_HOST")).split(".", 1)[0]
    name = options.name or f"{source}-restored"
    where = ["--resource-group", place.group, "--name", name]
    if name == source:
        raise Failed(f"{name} is the server that runs.")
    if options.drop:
        if not name.endswith("-restored"):
            raise Failed(f"{name} does not end in -restored: delete it by hand, if it really is the one.")
        az("postgres", "flexible-server", "delete", *where, "--yes")
        deployment.store.log("restore", deployment.who, "dropped", server=name)
        return 0
    moment = options.at or stamp(now() - datetime.timedelta(minutes=10))
    try:
        at = parse(moment)
    except ValueError:
        raise Failed(f"--at {moment}: a moment in UTC is needed, such as 2026-11-27T10:31:00Z.") from None
    began = time.monotonic()
    host = restored(az, place.group, source, name, at)
    taken = time.monotonic() - began
    role = options.database_role or f"{place.project}-{place.name}-deploy"
    if az.dry:
        print(f"psql, on both: counts of all tables of {options.database}", flush=True)
        return 0
    wanted, found = (counts(az, one, role, options.database) for one in (str(place.outputs["DATABASE_HOST"]), host))
    whole = time.monotonic() - began
    for table in sorted(set(wanted) | set(found)):
        then, here = found.get(table), wanted.get(table)
        print(f"{table:<32} {'-' if then is None else then:>12} restored {'-' if here is None else here:>12} now{'' if then == here else '   differs'}")
    differing = sorted(table for table in set(wanted) | set(found) if wanted.get(table) != found.get(table))
    outcome = "held" if whole <= OBJECTIVE else f"too slow: {whole:.0f} s of {OBJECTIVE} s"
    say(f"{name} is {source} at {moment}; restored in {taken:.0f} s, counted after {whole:.0f} s of the {OBJECTIVE} s allowed (RTO): {outcome}")
    deployment.store.log("restore", deployment.who, outcome, server=name, to=moment, seconds=round(whole), tables=len(found), differing=differing)
    say(f"Look at it, copy back what is missing, then: scripts/restore {place.name} --drop. docs/runbooks/restore.md")
    return 1 if whole > OBJECTIVE or (options.equal and differing) else 0


def restored(az: Az, group: str, source: str, name: str, at: datetime.datetime) -> str:
    """The new server's host name; one that is there already is taken for the one that was asked for."""
    query = ["--query", "{host: fullyQualifiedDomainName, subnet: network.delegatedSubnetResourceId, zone: network.privateDnsZoneArmResourceId, earliest: backup.earliestRestoreDate}"]
    assumed = {"host": f"<{name}>", "subnet": "<SUBNET>", "zone": "<ZONE>", "earliest": "2000-01-01T00:00:00"}
    old = az("postgres", "flexible-server", "show", "--resource-group", group, "--name", source, *query, assume=assumed)
    if old.get("earliest") and at < datetime.datetime.fromisoformat(old["earliest"]).replace(tzinfo=datetime.UTC):
        raise Failed(f"{source} has no backup from before {old['earliest']}: older rows are in the exports (scripts/export), if anywhere.")
    if at > now():
        raise Failed(f"{stamp(at)} is in the future.")
    try:
        there = None if az.dry else az("postgres", "flexible-server", "show", "--resource-group", group, "--name", name, *query)
    except Missing:
        there = None
    if not there:
        network = ["--subnet", old["subnet"], "--private-dns-zone", old["zone"]] if old.get("subnet") else []
        az("postgres", "flexible-server", "restore", "--resource-group", group, "--name", name, "--source-server", source, "--restore-time", stamp(at), *network, "--yes")
        there = az("postgres", "flexible-server", "show", "--resource-group", group, "--name", name, *query, assume=assumed)
    else:
        say(f"{name} is there already, and is taken as it is (scripts/restore … --drop deletes it)")
    return there["host"]


def counts(az: Az, host: str, role: str, database: str) -> dict[str, int]:
    token = az("account", "get-access-token", "--resource-type", "oss-rdbms", "--query", "accessToken")
    environment = os.environ | {"PGPASSWORD": token or "", "PGSSLMODE": os.environ.get("PGSSLMODE", "require"), "PGCONNECT_TIMEOUT": "15"}

    def ask(text: str) -> str:
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--host", host, "--username", role, "--dbname", database]
        try:
            done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Failed("psql is missing: install PostgreSQL's client.") from None
        if done.returncode != 0:
            raise Failed(f"psql failed on {host}: {done.stderr.strip()[-400:]}\nWhere the database is private, this runs in the management subnet. The restored server stays; run this again there.")
        return done.stdout.strip()

    query = ask(COUNTS)
    return {table: int(count) for table, _, count in (row.partition("|") for row in ask(query).split("\n") if row)} if query else {}
