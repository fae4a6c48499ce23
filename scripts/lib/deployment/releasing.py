"""A release from its packages to production, and the way back. Every step may be cut anywhere and run twice.

Order: function package, `migrate`, server to the slot, smoke test, swap, watch, console. The schema is compatible with the version
before, so the way back leaves it: it swaps again and publishes the kept function package.
"""

import argparse
import os
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from . import console, packages, watching
from .az import Az, Beside, Failed, Refused, say
from .store import Store, now, parse, stamp
from .target import MANAGEMENT, Environment, find

# As far as a deployment may have come. From `swap` on, another release must not begin before this one ended.
STEPS = ("handlers", "migrate", "server", "smoke", "swap", "watch", "back")


class NotSwapped(Failed):
    """Azure says itself that it did not."""


@dataclass
class Deployment:
    az: Az
    environment: Environment
    store: Store
    watch: watching.Watch
    options: argparse.Namespace
    subscription: str
    who: str

    # -- the steps ----------------------------------------------------------------------------------------------

    def step(self, name: str, text: str, **details) -> None:
        say(f"{name}: {text}")
        self.store.write(deploying={**(self.store.state.get("deploying") or {}), "step": name, **details})

    def publish_handlers(self, package: Path) -> None:
        site = ["--resource-group", self.environment.group, "--name", self.environment.handlers]
        self.az("functionapp", "deployment", "source", "config-zip", *site, "--src", shown(self.az, package))

    def migrate(self) -> None:
        """Inside the network: the function app's own `migrate`, by way of Azure's management interface. Its handlers say `ready`
        once the schema is what they need."""
        site = self.environment.site(self.environment.handlers, self.subscription)
        self.az.rest("post", f"{MANAGEMENT}{site}/hostruntime/admin/functions/migrate?api-version=2024-04-01", {"input": ""})
        waiting = argparse.Namespace(smoke_minutes=self.options.migrate_minutes, smoke_interval=self.options.smoke_interval)
        watching.await_ready(
            self.az, f"{self.environment.handlers_url}/api/health/ready", waiting, "Migrations are not applied, or storage is away: docs/runbooks/stuck-migration.md. The server was not touched."
        )

    def publish_server(self, package: Path, slot: str) -> None:
        site = ["--resource-group", self.environment.group, "--name", self.environment.server, *(["--slot", slot] if slot else [])]
        self.az("webapp", "deploy", *site, "--src-path", shown(self.az, package), "--type", "zip", "--async", "false", "--clean", "true", "--restart", "true")

    def migrate_slot(self, package: Path) -> None:
        """The slot's database, which the function app does not know (docs/decisions/0006): from here, by this release's own program."""
        role = self.options.database_role or f"{self.environment.project}-{self.environment.name}-deploy"
        url = f"postgres://{role}@{self.environment.outputs.get('DATABASE_HOST')}:5432/colloquy_slot"
        if self.az.dry:
            print(f"DATABASE_DIRECT_URL={url} function-handlers migrate", flush=True)
            return
        with tempfile.TemporaryDirectory() as place:
            with zipfile.ZipFile(package) as zipped:
                zipped.extract("function-handlers", place)
            program, structure = Path(place) / "function-handlers", Path(place) / "colloquy.toml"
            program.chmod(0o755)
            # No sources, no targets: migrations need none, and so no secret of theirs.
            structure.write_text("")
            settings = {
                "DATABASE_URL": url, "DATABASE_DIRECT_URL": url, "DB_AUTH_MODE": "entra", "AZURE_CREDENTIAL": "developer", "APP_ENV": "dev", "COLLOQUY_CONFIG": str(structure),
                "AzureWebJobsStorage": "UseDevelopmentStorage=true", "QUEUE_EVENTS": "events", "QUEUE_JOBS": "jobs", "QUEUE_CALLBACKS": "callbacks",
            }  # fmt: skip
            done = subprocess.run([program, "migrate"], env={name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "AZURE_CONFIG_DIR")} | settings, cwd=place, check=False)
        if done.returncode != 0:
            raise Failed(
                "The slot's database (colloquy_slot) was not migrated; production was not touched. This has to run where port 5432 of the database is reached "
                "(the management subnet), and the role must be there: scripts/bootstrap prints its SQL. Or migrate it elsewhere and pass --no-slot-migration."
            )

    def swapped_at(self) -> str:
        """When Azure last swapped, as it says itself; empty if never."""
        site = ["--resource-group", self.environment.group, "--name", self.environment.server]
        return self.az("webapp", "show", *site, "--query", "slotSwapStatus.timestampUtc", assume="") or ""

    def swap(self) -> None:
        """Slot and production, once: Azure's own time of the last swap tells whether a call that was cut or failed did it."""
        deploying = self.store.state["deploying"]
        before = deploying.get("swapped_before")
        if before is None:
            before = self.swapped_at()
            self.store.write(deploying={**deploying, "swapped_before": before})
        elif self.swapped_at() != before:
            say("  it was swapped already")
            return
        site = ["--resource-group", self.environment.group, "--name", self.environment.server, "--slot", self.environment.slot]
        try:
            self.az("webapp", "deployment", "slot", "swap", *site, "--target-slot", "production")
        except Refused as refused:
            if self.swapped_at() == before:
                raise NotSwapped(f"Azure did not swap, and production is what it was. {refused}") from None
            say("  the call failed, and Azure has swapped all the same")

    # -- a release ----------------------------------------------------------------------------------------------

    def deploy(self, release: packages.Release) -> None:
        state = self.store.read()
        under_way = state.get("deploying") or {}
        mine = {name: under_way.get(name) for name in ("handlers", "server")} == release.names
        if under_way and not mine:
            self.refuse_beside(under_way)
        if state.get("current", {}).get("handlers") == release.names["handlers"] and state["current"].get("server") == release.names["server"] and not under_way and not self.options.again:
            say(f"{release.names['server']} is what {self.environment.name} runs. Nothing to do (--again deploys it all the same).")
            self.console(release.console)
            return
        step = under_way.get("step") if mine else None
        if step == "back":
            say("a way back was cut: it is finished")
            self.back(under_way.get("reason", "its run was cut"))
            raise Failed(f"{release.names['server']} went back: {under_way.get('reason', 'its run was cut')}")
        if not mine:
            self.store.write(deploying={**release.names, "by": self.who, "since": stamp(now())})
        if step not in ("swap", "watch"):
            try:
                self._until_the_swap(release)
            except Beside:
                raise
            except Failed as failure:
                self.store.log("deploy", self.who, "failed", **release.names, reason=str(failure).splitlines()[0])
                self._leave_as_before(str(failure))
                raise
        self._from_the_swap_on(release)

    def refuse_beside(self, under_way: dict) -> None:
        name, since = under_way.get("server"), under_way.get("since", "")
        told = f"{name} is being deployed by {under_way.get('by')} since {since}; it is at the step `{under_way.get('step', 'begin')}`."
        if under_way.get("step") in ("swap", "watch", "back"):
            raise Failed(f"{told} It has to end first: run scripts/deploy with its packages once more, or scripts/rollback {self.environment.name}.")
        if not self.options.take_over and (not since or now() - parse(since) < timedelta(minutes=self.options.lock_minutes)):
            raise Failed(f"{told} Wait for it; if its run is gone, pass --take-over (after {self.options.lock_minutes:g} min it is taken over by itself).")
        say(f"{told} Its run is taken for gone.")

    def _until_the_swap(self, release: packages.Release) -> None:
        watching.references(self.az, self.environment, self.subscription, bool(self.environment.slot))
        self.store.keep(release.handlers)
        self.store.keep(release.server)
        if release.console:
            self.store.keep(release.console)
        self.step("handlers", f"{release.names['handlers']} to {self.environment.handlers}")
        self.publish_handlers(release.handlers)
        self.step("migrate", "the function app migrates its database")
        self.migrate()
        if not self.environment.slot:
            return
        self.step("server", f"{release.names['server']} to the slot of {self.environment.server}")
        # From here on the slot does not hold the version before.
        self.store.write(slot={"server": release.names["server"]})
        if not self.options.no_slot_migration:
            self.migrate_slot(release.handlers)
        self.publish_server(release.server, self.environment.slot)
        self.step("smoke", "the slot is tried")
        watching.smoke(self.az, self.environment.slot_url, self.options)

    def _from_the_swap_on(self, release: packages.Release) -> None:
        state = self.store.state
        resumed = state["deploying"].get("step") == "watch"
        if not resumed:
            if "before" not in state["deploying"]:
                self.watch.baseline()
            before = state["deploying"].get("before", sorted(self.watch.before))
            if self.environment.slot:
                self.step("swap", "the slot becomes production", before=before)
                try:
                    self.swap()
                except NotSwapped as failure:
                    self.store.log("deploy", self.who, "failed", **release.names, reason=str(failure).splitlines()[0])
                    self._leave_as_before(str(failure))
                    raise
            else:
                self.step("swap", f"{release.names['server']} to {self.environment.server}, which has no slot", before=before)
                try:
                    self.publish_server(release.server, "")
                except Refused as failure:
                    # Half of it may be there.
                    self.back(str(failure))
                    raise Failed(f"{release.names['server']} went back: {failure}") from None
            # What production ran is in the slot now.
            self.store.write(slot={"server": state["current"]["server"]} if self.environment.slot and state.get("current") else None)
            self.step("watch", "production is tried, then watched")
        self.watch.before = set(self.store.state["deploying"].get("before", []))
        try:
            watching.smoke(self.az, self.environment.server_url, self.options)
            watching.smoke(self.az, self.environment.handlers_url, self.options, "/api")
            reason = self.watch.run()
        except Failed as failure:
            reason = str(failure)
        if reason:
            self.back(reason)
            raise Failed(f"{release.names['server']} went back: {reason}")
        self.store.write(current={**release.all_names, "at": stamp(now()), "by": self.who}, previous=self._before(release), deploying=None)
        self.store.log("deploy", self.who, "succeeded", **release.names)
        self.console(release.console)
        self.store.prune(self.options.keep)
        say(f"deployed: {release.names['server']} and {release.names['handlers']} to {self.environment.name}")

    def console(self, package: Path | None = None) -> None:
        """Pages follow the release that runs. Only now: those that people have loaded go on with the server of before and of after,
        and none may come before its server."""
        wanted = (self.store.state.get("current") or {}).get("console")
        if not wanted or not self.environment.console or self.store.state.get("console") == wanted:
            return
        say(f"console: {wanted} to {self.environment.console}")
        with tempfile.TemporaryDirectory() as place:
            if not package or package.name != wanted:
                package = self.store.fetch(wanted, Path(place))
            try:
                console.publish(self.az, self.environment, package, self.options)
            except Failed as failure:
                self.store.log("console", self.who, "failed", console=wanted, reason=str(failure).splitlines()[0])
                raise Failed(f"The release runs, and its console is the one of before: {failure}") from None
        self.store.write(console=wanted)

    def _before(self, release: packages.Release) -> dict | None:
        """What to go back to: the release before, not this one deployed again."""
        current = self.store.state.get("current")
        same = current and current.get("server") == release.names["server"] and current.get("handlers") == release.names["handlers"]
        return self.store.state.get("previous") if same else current

    # -- the way back -------------------------------------------------------------------------------------------

    def back(self, reason: str) -> None:
        """From a release that is under way to `current`, which is still what went before."""
        state = self.store.state
        before, failed = state.get("current"), state["deploying"]
        if not before:
            self.store.write(deploying=None)
            self.store.log("rollback", self.who, "impossible", reason=reason)
            raise Failed(f"There is no release before to go back to: {reason}. Mend it and deploy again; until then scripts/emergency-deny {self.environment.name} --everybody keeps callers away.")
        say(f"going back to {before['server']}: {reason}")
        self.restore(before, failed, reason)
        self.store.write(deploying=None)
        self.store.log("rollback", self.who, "succeeded", handlers=before["handlers"], server=before["server"], instead_of=failed.get("server"), reason=reason)
        say(f"back: {self.environment.name} runs {before['server']} and {before['handlers']}")
        self.console()

    def _leave_as_before(self, reason: str) -> None:
        """A release that failed before the swap: production's server was not touched, its functions go back."""
        try:
            self._back_before_the_swap(reason)
        except Failed as failure:
            raise Failed(f"{reason}\nThe way back of the function package failed too: {failure}\nRun scripts/rollback {self.environment.name}.") from None

    def restore(self, release: dict, failed: dict, reason: str) -> None:
        """The server first: it is what callers wait for. By a swap if the slot holds it, else from its package."""
        held = (self.store.state.get("slot") or {}).get("server") == release["server"]
        if failed.get("step") != "back":
            self.store.write(deploying={**failed, "step": "back", "swapped_before": None, "swaps": held, "reason": reason})
        # Decided once: after a swap that was cut the slot holds the other one.
        if self.store.state["deploying"]["swaps"]:
            self.swap()
            self.store.write(slot={"server": failed.get("server")})
        with tempfile.TemporaryDirectory() as place:
            if not self.store.state["deploying"]["swaps"]:
                server = self.store.fetch(release["server"], Path(place))
                if self.environment.slot:
                    self.publish_server(server, self.environment.slot)
                    watching.smoke(self.az, self.environment.slot_url, self.options)
                    self.swap()
                else:
                    self.publish_server(server, "")
            self.publish_handlers(self.store.fetch(release["handlers"], Path(place)))
        watching.smoke(self.az, self.environment.server_url, self.options)
        watching.smoke(self.az, self.environment.handlers_url, self.options, "/api")

    def rollback(self, reason: str) -> None:
        """By hand: a release that is under way goes back; else the one that runs gives way to the one before."""
        state = self.store.read()
        if state.get("deploying"):
            if state["deploying"].get("step") in ("swap", "watch", "back"):
                # A swap that was cut before it happened: production is still what it was.
                noted = state["deploying"].get("swapped_before")
                if state["deploying"]["step"] == "swap" and self.environment.slot and (noted is None or self.swapped_at() == noted):
                    self.store.write(deploying={**state["deploying"], "step": "smoke"})
                else:
                    self.back(reason)
                    return
            # Production's server was not touched; its functions may have been.
            self._back_before_the_swap(reason)
            return
        current, previous = state.get("current"), state.get("previous")
        if not current or not previous:
            raise Failed(f"{self.environment.name} has no release before to go back to. scripts/deploy {self.environment.name} --status shows what there was.")
        say(f"going back from {current['server']} to {previous['server']}")
        held = (state.get("slot") or {}).get("server") == previous["server"]
        failed = {"handlers": current["handlers"], "server": current["server"], "by": self.who, "since": stamp(now())}
        # One write: cut behind it, the next run finds a way back under way.
        self.store.write(deploying={**failed, "step": "back", "swapped_before": None, "swaps": held, "reason": reason}, current=previous, previous=None)
        self.back(reason)

    def _back_before_the_swap(self, reason: str) -> None:
        before, failed = self.store.state.get("current"), self.store.state["deploying"]
        if before and failed.get("step") and before["handlers"] != failed.get("handlers"):
            with tempfile.TemporaryDirectory() as place:
                self.publish_handlers(self.store.fetch(before["handlers"], Path(place)))
            watching.smoke(self.az, self.environment.handlers_url, self.options, "/api")
        self.store.write(deploying=None)
        self.store.log("rollback", self.who, "succeeded", instead_of=failed.get("server"), reason=reason)
        say(f"{failed.get('server')} did not reach production" + (f"; its functions are {before['handlers']} again" if before else ""))


def shown(az: Az, package: Path) -> str:
    return str(package) if not az.dry or package.exists() else package.name


def open_deployment(options: argparse.Namespace) -> Deployment:
    az = Az(options.dry_run, tries=options.tries, wait=options.retry_wait)
    account = az("account", "show", "--query", "{id: id, user: user.name}", assume={"id": "<SUBSCRIPTION>", "user": "<WHO>"})
    environment = find(az, options.environment, getattr(options, "slot_url", ""))
    store = Store(az, environment, account["id"])
    watch = watching.Watch(az, environment, account["id"], options)
    who = os.environ.get("GITHUB_ACTOR") or os.environ.get("BUILD_REQUESTEDFOR") or account["user"]
    return Deployment(az, environment, store, watch, options, account["id"], who)
