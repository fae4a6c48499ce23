"""A command of either program, on this machine, with the settings of an environment in Azure."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from . import packages
from .az import Az, Failed
from .target import ROOT, Parameters, find

REFERENCE = re.compile(r"^@Microsoft\.KeyVault\(SecretUri=(https://[^)]+?)/?\)$")
APPS = {"function-handlers": ("functionapp", "handlers"), "conversation-server": ("webapp", "server")}
# The platform's, and what only its machines have.
DROPPED = re.compile(r"^(WEBSITE_|WEBSITES_|SCM_|APPLICATIONINSIGHTS_|OTEL_|AZURE_CLIENT_ID$|AzureWebJobsStorage__clientId$|AzureWebJobsStorage__credential$|REDIS_USERNAME$)")


def main(description: str) -> int:
    from .commands import add_common

    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("environment", help="dev, staging or prod")
    made.add_argument("--database-role", default="", help="who you are in PostgreSQL (default: {project}-{environment}-deploy)")
    made.add_argument("--package", default="", metavar="ZIP", help="take the program from this package (default: what scripts/build left, else the package in target/packages)")
    add_common(made)
    made.usage = "scripts/operate ENVIRONMENT [OPTIONS] function-handlers|conversation-server COMMAND …"
    # What follows the program is its own, options too.
    at = next((number for number, word in enumerate(sys.argv) if word in APPS), len(sys.argv))
    options = made.parse_args(sys.argv[1:at])
    options.command = sys.argv[at:]
    if not options.command:
        made.error("a command: function-handlers … or conversation-server …")
    parameters = Parameters(options.environment)
    az = Az(options.dry_run, tries=options.tries, wait=options.retry_wait)
    place = find(az, options.environment, "-")
    kind, which = APPS[options.command[0]]
    told = az(kind, "config", "appsettings", "list", "--resource-group", place.group, "--name", getattr(place, which), "--query", "[].{name: name, value: value}", assume=[]) or []
    role = options.database_role or f"{parameters.get('project')}-{options.environment}-deploy"
    settings = {one["name"]: value_of(az, one["value"]) for one in told if not DROPPED.match(one["name"])}
    for name in ("DATABASE_URL", "DATABASE_DIRECT_URL"):
        if name in settings:
            settings[name] = re.sub(r"//[^@/]+@", f"//{role}@", settings[name])
    settings |= {"AZURE_CREDENTIAL": "developer"}
    if az.dry:
        print(" ".join(options.command), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [str(program(options, which, Path(folder))), *options.command[1:]]
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TERM", "LANG", "AZURE_CONFIG_DIR")}
        # By environment alone: nothing of it is in an argument, a file or a log.
        return subprocess.run(command, cwd=ROOT, env=kept | settings, check=False).returncode


def value_of(az: Az, value: str) -> str:
    reference = REFERENCE.match(value or "")
    if not reference:
        return value or ""
    return az("keyvault", "secret", "show", "--id", reference[1], "--query", "value", assume="…")


def program(options: argparse.Namespace, which: str, folder: Path) -> Path:
    name = options.command[0]
    built = ROOT / name
    if not options.package and built.exists():
        return built
    wanted = packages.HANDLERS if which == "handlers" else packages.SERVER
    try:
        package = packages.one(options.environment, which, options.package, "", wanted, name)
    except Failed as failure:
        raise Failed(f"There is no {name} here: scripts/build, or {failure}") from None
    with zipfile.ZipFile(package) as zipped:
        zipped.extract(name, folder)
    (folder / name).chmod(0o755)
    return folder / name
