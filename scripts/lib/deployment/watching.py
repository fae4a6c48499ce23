"""Looking at an environment: the smoke test, and the watch after a swap with its reasons to go back.

The reasons are the documents': 5xx over 5 % within 10 minutes, a failed health check, calls to external systems that fail
systematically, models that do not answer. The last two are looked at before the swap as well: what failed already is not
mended by going back.
"""

import argparse
import datetime
import json
import os
import time
from dataclasses import dataclass, field

from .az import Az, Failed, say
from .store import now, stamp
from .target import MANAGEMENT, Environment

# Of both programs, one row: the most of each gauge, and the share of webhooks' invocations that failed.
QUERY = """AppMetrics | where TimeGenerated > datetime({since}) | summarize \
failing = maxif(coalesce(Max, Sum), Name == "colloquy.external.failing"), \
breakers = maxif(coalesce(Max, Sum), Name == "colloquy.llm.breaker.open"), \
calls = sumif(Sum, Name == "colloquy.invocations" and tostring(Properties["function"]) == "receive-webhook"), \
failed = sumif(Sum, Name == "colloquy.invocations" and tostring(Properties["function"]) == "receive-webhook" and tostring(Properties["outcome"]) == "failed")"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the watch after the swap")
    group.add_argument("--watch-minutes", type=float, default=15, help="how long (default: %(default)s)")
    group.add_argument("--watch-interval", type=float, default=30, metavar="SECONDS", help="time between two looks (default: %(default)s)")
    group.add_argument("--max-error-percent", type=float, default=5, help="share of 5xx above which it goes back (default: %(default)s)")
    group.add_argument("--error-window-minutes", type=float, default=10, help="over how long the share is counted (default: %(default)s)")
    group.add_argument("--min-requests", type=int, default=20, help="requests below which a share means nothing (default: %(default)s)")
    group.add_argument("--health-failures", type=int, default=3, help="failed looks at /health/ready in a row that go back (default: %(default)s)")
    group.add_argument("--external-failures", type=int, default=5, help="failed calls in a row to an external system that go back (default: %(default)s)")


def add_smoke_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the smoke test")
    group.add_argument("--smoke-minutes", type=float, default=5, help="how long what was deployed has to become ready (default: %(default)s)")
    group.add_argument("--smoke-interval", type=float, default=5, metavar="SECONDS", help="time between two looks (default: %(default)s)")
    group.add_argument("--model", default="", metavar="ALIAS", help="ask it for a few words as well; costs a few tokens, needs COLLOQUY_API_KEY")


@dataclass
class Watch:
    az: Az
    environment: Environment
    subscription: str
    options: argparse.Namespace
    # What failed before the swap already.
    before: set[str] = field(default_factory=set)
    _failures: int = 0
    _workspace: str | None = None

    def reasons(self, since: float) -> dict[str, str]:
        """What speaks for going back, by name. `since`: seconds ago that the swap was."""
        moment = stamp(now() - _seconds(min(since, self.options.error_window_minutes * 60)))
        return self._health() | self._errors(moment) | self._metrics(moment)

    def baseline(self) -> None:
        """Before the swap, over the window of errors."""
        found = self._metrics(stamp(now() - _seconds(self.options.error_window_minutes * 60)))
        self.before = set(found)
        for reason in found.values():
            say(f"  before the swap already, so no reason to go back: {reason}")

    def run(self) -> str | None:
        """Watches; the reason to go back, or None when the time is over."""
        started = time.monotonic()
        minutes = self.options.watch_minutes
        say(f"watching for {minutes:g} min; back at 5xx over {self.options.max_error_percent:g} %, {self.options.health_failures} failed health checks, systems or models that fail")
        while True:
            elapsed = time.monotonic() - started
            found = {name: reason for name, reason in self.reasons(elapsed + 1).items() if name not in self.before}
            if found:
                return "; ".join(found.values())
            if self.az.dry or elapsed >= minutes * 60:
                return None
            self.az.sleep(min(self.options.watch_interval, max(minutes * 60 - elapsed, 0)))

    def _health(self) -> dict[str, str]:
        failed = [told for told in (ready(self.az, self.environment.server_url + "/health/ready"), ready(self.az, self.environment.handlers_url + "/api/health/ready")) if told]
        self._failures = self._failures + 1 if failed else 0
        if failed:
            say(f"  {failed[0]} ({self._failures} of {self.options.health_failures})")
        return {"health": f"the health check failed {self._failures} times in a row: {failed[0]}"} if self._failures >= self.options.health_failures else {}

    def _errors(self, since: str) -> dict[str, str]:
        told = self._asked(
            "monitor", "metrics", "list", "--resource", self.environment.site(self.environment.server, self.subscription), "--metrics", "Requests", "Http5xx",
            "--aggregation", "Total", "--interval", "PT1M", "--start-time", since if not self.az.dry else "<SWAPPED>", assume={},
        ) or {}  # fmt: skip
        sums = {metric["name"]["value"]: sum(point.get("total") or 0 for series in metric["timeseries"] for point in series["data"]) for metric in told.get("value", [])}
        return self._share("the server", sums.get("Http5xx", 0), sums.get("Requests", 0))

    def _asked(self, *arguments: str, assume=None):
        """What cannot be asked is said, and is no reason to go back."""
        try:
            return self.az(*arguments, assume=assume)
        except Failed as failure:
            say(f"  not seen: {failure}")
            return None

    def _share(self, who: str, failed: float, of: float) -> dict[str, str]:
        percent = 100 * failed / of if of else 0
        if of < self.options.min_requests or percent <= self.options.max_error_percent:
            return {}
        return {f"errors of {who}": f"{who} answered {percent:.1f} % of {of:g} requests with 5xx, over {self.options.max_error_percent:g} %"}

    def _metrics(self, since: str) -> dict[str, str]:
        if self._workspace is None:
            found = self._asked("monitor", "log-analytics", "workspace", "list", "--resource-group", self.environment.group, "--query", "[0].customerId", assume="<WORKSPACE>")
            self._workspace = found or ""
        if not self._workspace:
            say("  no workspace: external systems, models and webhooks are not watched")
            return {}
        url = f"https://api.loganalytics.io/v1/workspaces/{self._workspace}/query"
        query = QUERY.format(since=since if not self.az.dry else "<SWAPPED>")
        # A workspace without samples yet has no such table, and refuses.
        told = self._asked("rest", "--method", "post", "--url", url, "--body", json.dumps({"query": query}), "--resource", "https://api.loganalytics.io", assume={})
        table = ((told or {}).get("tables") or [{}])[0]
        row = dict(zip([column["name"] for column in table.get("columns", [])], (table.get("rows") or [[]])[0]))
        found = self._share("the function app", row.get("failed") or 0, row.get("calls") or 0)
        if (row.get("failing") or 0) >= self.options.external_failures:
            found["external"] = f"{row['failing']:g} calls in a row to an external system failed"
        if (row.get("breakers") or 0) >= 1:
            found["models"] = f"{row['breakers']:g} model deployments are left alone after failures"
        return found


def _seconds(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=seconds)


def ready(az: Az, url: str) -> str | None:
    """What is wrong with an address of health, or None."""
    status, body = az.get(url)
    if status == 200:
        return None
    try:
        checks = json.loads(body)["checks"]
        which = ", ".join(check["name"] for check in checks if not check["ok"])
    except (ValueError, KeyError, TypeError):
        which = ""
    reason = f"not ready: {which}" if which else body.strip()[:200] if status == 0 else ""
    if status == 403:
        reason = "refused before it reached the app: run this in the management subnet, or from an address in managementAddresses"
    return f"{url} answered {status or 'nothing'}{f' ({reason})' if reason else ''}"


def await_ready(az: Az, url: str, options: argparse.Namespace, hint: str) -> None:
    """Waits until an address of health answers 200."""
    end = time.monotonic() + options.smoke_minutes * 60
    while told := ready(az, url):
        if time.monotonic() >= end:
            raise Failed(f"{told}, for {options.smoke_minutes:g} min (--smoke-minutes). {hint}")
        az.sleep(options.smoke_interval)


def smoke(az: Az, url: str, options: argparse.Namespace, prefix: str = "") -> None:
    """Live, ready, a refusal where there must be one, and with an operator's key the status, a WebSocket and a model's answer."""
    say(f"smoke test of {url}")
    await_ready(az, f"{url}{prefix}/health/live", options, "It does not run: `az webapp log tail`, or the host's log, has its last lines.")
    await_ready(az, f"{url}{prefix}/health/ready", options, "It runs, and does not reach what it needs: see docs/runbooks/bad-deploy.md.")
    # An app that shows its status to anybody is set up wrongly.
    status, _ = az.get(f"{url}{prefix}/health/status")
    if status not in (401, 403) and not az.dry:
        raise Failed(f"{url}{prefix}/health/status answered {status} without a key; 401 is right. Is APP_ENV set?")
    key = os.environ.get("COLLOQUY_API_KEY")
    if not key:
        say("  COLLOQUY_API_KEY is not set: /health/status and model aliases are not looked at")
        return
    status, body = az.get(f"{url}{prefix}/health/status", key)
    if status != 200:
        raise Failed(f"{url}{prefix}/health/status answered {status} with COLLOQUY_API_KEY; it needs a key with the scope `operator`.")
    try:
        told = json.loads(body)
    except ValueError:
        raise Failed(f"{url}{prefix}/health/status is not JSON.") from None
    if not az.dry:
        say(f"  version {told.get('version')}, commit {told.get('commit')}, environment {told.get('environment')}")
        broken = [deployment["name"] for deployment in told.get("deployments", []) if deployment["breaker"] != "closed"]
        if broken:
            raise Failed(f"{url}: model deployments are not answering: {', '.join(broken)}. See docs/runbooks/provider-down.md.")
    if not prefix:
        status = az.upgrade(f"{url}/v1/responses", key)
        if status != 101:
            raise Failed(f"{url}/v1/responses answered a WebSocket's handshake with {status or 'nothing'}, and not 101: is webSocketsEnabled, and does the edge pass it?")
    if options.model and not prefix:
        status, body = az.get(f"{url}/v1/responses", key, {"model": options.model, "input": "Say: ok", "max_output_tokens": 64, "store": False})
        if status != 200:
            raise Failed(f"{url}: the model {options.model} answered {status}: {body[:300]}. See docs/runbooks/provider-down.md.")
        say(f"  {options.model} answers")


def references(az: Az, environment: Environment, subscription: str, slot: bool) -> None:
    """Every reference to the vault is resolved: an app with one that is not refuses to start."""
    sites = [("the function app", environment.site(environment.handlers, subscription)), ("the server", environment.site(environment.server, subscription))]
    if slot:
        sites.append(("the slot", environment.site(environment.server, subscription, environment.slot)))
    for who, site in sites:
        told = az.rest("get", f"{MANAGEMENT}{site}/config/configreferences/appsettings?api-version=2022-03-01", assume={}) or {}
        for reference in told.get("value", []):
            properties = reference.get("properties", {})
            if properties.get("status") != "Resolved":
                name = reference["name"].rsplit("/", 1)[-1]
                raise Failed(
                    f"{who}: {name} is not resolved ({properties.get('status')}): {properties.get('details') or 'the secret is missing, or the identity may not read it'}. "
                    f"Seed it with scripts/bootstrap {environment.name} --only secrets; see docs/runbooks/key-vault-down.md."
                )
