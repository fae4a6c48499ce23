"""Who may do what in PostgreSQL: SQL for the administrator, and the ways to run it where the database is."""

import argparse
import base64
import os
import shlex
import socket
import subprocess
import tempfile
from pathlib import Path

from .az import Az, Failed, Missing, say
from .target import Environment

DONE = "colloquy: roles are there"


def statements(place: Environment) -> list[tuple[str, str]]:
    """Database and what is run there, in order. Each may be run again."""
    roles = [str(role) for role in place.outputs.get("DATABASE_ROLES") or []]
    deploy, export = (f"{place.project}-{place.name}-{purpose}" for purpose in ("deploy", "export"))
    made = [("postgres", principals([*roles, deploy, export])), ("colloquy", ownership(roles, deploy) + reading(export))]
    return made + [("colloquy_slot", ownership(roles, deploy))] if place.slot else made


def principals(roles: list[str]) -> str:
    """On the database `postgres`: identities as roles, once each."""
    return "".join(
        f"select pgaadauth_create_principal('{role}', false, false) where not exists (select from pg_roles where rolname = '{role}');\n" for role in roles
    )  # fmt: skip


def ownership(roles: list[str], deploy: str) -> str:
    """Tables belong to one role that all act as: all make partitions, and only an owner may."""
    everybody = ", ".join(f'"{role}"' for role in [*roles, deploy])
    return (
        "do $$ begin create role colloquy nologin; exception when duplicate_object then null; end $$;\n"
        f"grant colloquy to {everybody};\n"
        "grant create, usage on schema public to colloquy;\n"
        + "".join(f"alter role \"{role}\" set role to 'colloquy';\n" for role in [*roles, deploy])
    )


def reading(role: str) -> str:
    """What the nightly export needs: every table there is and will be, to read. Only who speaks for the owner may give that."""
    return (
        "grant colloquy to current_user;\n"
        f'grant usage on schema public to "{role}";\n'
        f'grant select on all tables in schema public to "{role}";\n'
        f'grant select on all sequences in schema public to "{role}";\n'
        f'alter default privileges for role colloquy in schema public grant select on tables to "{role}";\n'
        f'alter default privileges for role colloquy in schema public grant select on sequences to "{role}";\n'
    )


def make(az: Az, place: Environment, private: bool, options: argparse.Namespace, file: Path) -> None:
    """From here, or where the network is private by a machine in it."""
    host, scripts = str(place.outputs.get("DATABASE_HOST")), statements(place)
    here = az.dry or reached(host)
    if private and options.database_machine and (az.dry or not here):
        by_machine(az, place, host, scripts, options)
        return
    if az.dry:
        show(scripts)
        return
    if not here:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"\\connect {name}\n{text}" for name, text in scripts))
        raise Failed(
            f"{host}:5432 is not reached from here: it stands in a private network, or lets in Azure's alone (dev: Cloud Shell). Run `scripts/bootstrap {place.name} --only database` where it is, "
            f"in the management subnet, signed in as the database's administrator; or run {file} there with psql. All other parts are done."
        )
    token, user = administrator(az)
    for name, text in scripts:
        psql(host, user, token, name, text)


def show(scripts: list[tuple[str, str]]) -> None:
    for name, text in scripts:
        print(f"psql --dbname {name} <<'SQL'\n{text}SQL", flush=True)


def reached(host: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        try:
            probe.connect((host, 5432))
        except OSError:
            return False
    return True


def administrator(az: Az) -> tuple[str, str]:
    token = az("account", "get-access-token", "--resource-type", "oss-rdbms", "--query", "accessToken", assume="<TOKEN>")
    return str(token), os.environ.get("COLLOQUY_DATABASE_ADMINISTRATOR_NAME", "")


def psql(host: str, user: str, token: str, database: str, text: str) -> None:
    # The token by environment: an argument would be seen in the list of processes.
    environment = os.environ | {"PGPASSWORD": token, "PGSSLMODE": "require"}
    try:
        done = subprocess.run(["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--host", host, "--username", user, "--dbname", database], input=text, text=True, env=environment, check=False)
    except FileNotFoundError:
        raise Failed("psql is missing: install PostgreSQL's client (Debian: postgresql-client).") from None
    if done.returncode != 0:
        raise Failed(f"psql failed on {database}; its message is above. COLLOQUY_DATABASE_ADMINISTRATOR_NAME must be the administrator, and you one of the group.")


def by_machine(az: Az, place: Environment, host: str, scripts: list[tuple[str, str]], options: argparse.Namespace) -> None:
    """A small machine in the management subnet, for some minutes. Nothing reaches it: Azure's own agent there runs the script, and
    the machine goes with all that was on it."""
    name = f"{place.project}-{place.name}-bootstrap"
    where = ["--resource-group", place.group, "--name", name]
    say(f"  {host} is in a private network: a machine there ({name}, {options.database_machine}) gives the roles, and goes again (--database-machine '' for none)")
    # One that a run left which was cut is taken away: its key is lost.
    if not az.dry:
        remove(az, where)
    with tempfile.TemporaryDirectory() as folder:
        key, script = Path(folder) / "key", Path(folder) / "roles.sh"
        if not az.dry:
            # Azure wants one; nobody ever uses it.
            subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", str(key)], check=True, stdin=subprocess.DEVNULL)
        try:
            az(
                "vm", "create", *where, "--image", "Ubuntu2404", "--size", options.database_machine, "--vnet-name", f"{place.project}-{place.name}-vnet", "--subnet", "management",
                "--public-ip-address", "", "--nsg", "", "--admin-username", "colloquy", "--ssh-key-values", f"{key}.pub" if not az.dry else "<key>",
                "--tags", f"project={place.project}", f"environment={place.name}", "--os-disk-delete-option", "Delete", "--nic-delete-option", "Delete", "--query", "id",
            )  # fmt: skip
            token, user = administrator(az)
            if az.dry:
                show(scripts)
            else:
                with os.fdopen(os.open(script, os.O_WRONLY | os.O_CREAT, 0o600), "w") as output:
                    output.write(on_machine(host, user, token, scripts))
            told = az("vm", "run-command", "invoke", *where, "--command-id", "RunShellScript", "--scripts", f"@{script}" if not az.dry else "@<roles.sh>", "--query", "value[0].message", assume=DONE)
        finally:
            # Whatever happened: a machine that stays would cost, and hold what it was given.
            remove(az, where)
    if DONE not in str(told):
        raise Failed(f"The roles were not made; the machine said:\n{str(told).replace(token, '…')[-800:]}\nCOLLOQUY_DATABASE_ADMINISTRATOR_NAME must be the administrator, and you one of the group.")
    for database, _ in scripts:
        say(f"  roles in {database}")


def remove(az: Az, where: list[str]) -> None:
    try:
        az("vm", "delete", *where, "--yes")
    except Missing:
        pass


def on_machine(host: str, user: str, token: str, scripts: list[tuple[str, str]]) -> str:
    lines = [
        "#!/bin/bash", "set -eu", "export DEBIAN_FRONTEND=noninteractive PGSSLMODE=require PGCONNECT_TIMEOUT=15", f"export PGPASSWORD={shlex.quote(token)}",
        "apt-get update -qq >/dev/null", "apt-get install -qq --yes postgresql-client >/dev/null",
    ]  # fmt: skip
    for name, text in scripts:
        # Encoded: nothing of it is read by a shell.
        encoded = base64.b64encode(text.encode()).decode()
        lines.append(f"base64 -d <<<{encoded} | psql --no-psqlrc --quiet --output /dev/null --set ON_ERROR_STOP=1 --host {shlex.quote(host)} --username {shlex.quote(user)} --dbname {name}")
    return "\n".join([*lines, f"echo {shlex.quote(DONE)}", ""])
