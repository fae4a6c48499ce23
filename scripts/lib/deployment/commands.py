"""The command lines of deploy, smoke-test, swap and rollback."""

import argparse
import json
from pathlib import Path

from . import packages, watching
from .az import Az, Failed, say
from .releasing import Deployment, open_deployment
from .target import Parameters, find


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("environment", help="dev, staging or prod: which parameter file of bicep/")
    add_common(made)
    return made


def add_common(made: argparse.ArgumentParser) -> None:
    made.add_argument("--dry-run", action="store_true", help="print every call of az and every address that would be asked; make none")
    made.add_argument("--tries", type=int, default=6, help="tries of a call that is throttled or meets another operation (default: %(default)s)")
    made.add_argument("--retry-wait", type=float, default=10, metavar="SECONDS", help="wait before the second try; it doubles (default: %(default)s)")


def add_deployment(made: argparse.ArgumentParser) -> None:
    made.add_argument("--slot-url", default="", help="address of the slot, if it is not the one Azure gave it")
    made.add_argument("--migrate-minutes", type=float, default=10, help="how long migrations may take (default: %(default)s)")
    made.add_argument("--database-role", default="", help="role in PostgreSQL that migrates the slot's database (default: {project}-{environment}-deploy)")
    made.add_argument("--no-slot-migration", action="store_true", help="the slot's database was migrated elsewhere")
    made.add_argument("--keep", type=int, default=10, help="packages of each kind that are kept (default: %(default)s)")
    made.add_argument("--lock-minutes", type=float, default=60, help="after how long a deployment whose run is gone is taken over (default: %(default)s)")
    made.add_argument("--take-over", action="store_true", help="take over a deployment whose run is gone at once")
    watching.add_smoke_arguments(made)
    watching.add_arguments(made)


def deploy(description: str) -> int:
    made = parser(description)
    made.add_argument("--handlers-package", default="", metavar="ZIP", help="default: the one in target/packages/ for the environment")
    made.add_argument("--server-package", default="", metavar="ZIP", help="default: the one in target/packages/ for the environment")
    made.add_argument("--console-package", default="", metavar="ZIP", help="the same, where the console is on Static Web Apps")
    made.add_argument("--commit", default="", help="what all names must contain")
    made.add_argument("--again", action="store_true", help="deploy also what runs already")
    made.add_argument("--status", action="store_true", help="show what runs, what is under way and the log; change nothing")
    made.add_argument("--log-entries", type=int, default=10, help="entries that --status shows (default: %(default)s)")
    add_deployment(made)
    options = made.parse_args()
    if options.status:
        return status(open_deployment(options), options.log_entries)
    with_console = bool(Parameters(options.environment).get("staticWeb"))
    # Before anything is asked of Azure: a package that cannot run changes nothing.
    try:
        release = packages.find(options.environment, options.handlers_package, options.server_package, options.commit, options.console_package if with_console else None)
    except Failed as failure:
        if not options.dry_run:
            raise
        say(f"no package yet, so its name is made up: {failure}")
        made_up = [Path(f"target/packages/{name}-{options.environment}.zip") for name in ("function-handlers", "conversation-server", "console")]
        release = packages.Release(*made_up[: 3 if with_console else 2])
    open_deployment(options).deploy(release)
    return 0


def status(deployment: Deployment, most: int) -> int:
    print(json.dumps(deployment.store.read(), indent=2))
    for entry in deployment.store.entries(most):
        print(json.dumps(entry))
    return 0


def rollback(description: str) -> int:
    made = parser(description)
    made.add_argument("--reason", default="by hand", help="stands in the log")
    add_deployment(made)
    options = made.parse_args()
    open_deployment(options).rollback(options.reason)
    return 0


def swap(description: str) -> int:
    made = parser(description)
    made.add_argument("--reason", default="by hand", help="stands in the log")
    add_deployment(made)
    options = made.parse_args()
    deployment = open_deployment(options)
    if not deployment.environment.slot:
        raise Failed(f"{options.environment} has no slot: scripts/deploy and scripts/rollback publish there directly.")
    state = deployment.store.read()
    if state.get("deploying"):
        deployment.refuse_beside(state["deploying"])
    watching.smoke(deployment.az, deployment.environment.slot_url, options)
    current, held = state.get("current") or {}, (state.get("slot") or {}).get("server")
    deployment.store.write(deploying={"handlers": current.get("handlers"), "server": held, "by": deployment.who, "step": "swap"})
    deployment.swap()
    # Functions stay as they are: what was swapped is the server alone.
    deployment.store.write(current={**current, "server": held} if held else current, slot={"server": current["server"]} if current.get("server") else None, deploying=None)
    deployment.store.log("swap", deployment.who, "succeeded", server=held, reason=options.reason)
    watching.smoke(deployment.az, deployment.environment.server_url, options)
    return 0


def smoke_test(description: str) -> int:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("environment", help="dev, staging or prod")
    made.add_argument("--slot", action="store_true", help="try the slot instead of production")
    made.add_argument("--slot-url", default="", help="address of the slot, if it is not the one Azure gave it")
    add_common(made)
    watching.add_smoke_arguments(made)
    options = made.parse_args()
    az = Az(options.dry_run, tries=options.tries, wait=options.retry_wait)
    environment = find(az, options.environment, options.slot_url)
    if options.slot:
        if not environment.slot:
            raise Failed(f"{options.environment} has no slot.")
        watching.smoke(az, environment.slot_url, options)
    else:
        watching.smoke(az, environment.server_url, options)
        watching.smoke(az, environment.handlers_url, options, "/api")
    say("smoke test passed")
    return 0


def run(command, name: str, description: str | None) -> int:
    """Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong arguments, 130 interrupted."""
    try:
        return command(description or "")
    except Failed as failure:
        say(f"scripts/{name}: {failure}")
        return 1
    except KeyboardInterrupt:
        say(f"scripts/{name}: interrupted. Run it again: it goes on where it was.")
        return 130
