"""Callers kept away at the edge, without a deployment: some addresses, or everybody.

With Front Door: addresses by a rule of its firewall, everybody by switching its routes off. Without: by the apps' own access
restrictions. It holds until it is lifted, or until the infrastructure is deployed again.
"""

import argparse
import ipaddress
import json
import tempfile
from pathlib import Path

from .az import Failed, say
from .releasing import Deployment, open_deployment
from .target import MANAGEMENT, Parameters

RULE = "EmergencyDeny"
FIREWALL_VERSION = "api-version=2025-03-01"
ROUTES = ("webhooks", "server")


class Edge:
    """Front Door."""

    def __init__(self, deployment: Deployment):
        self.deployment, self.az, self.place = deployment, deployment.az, deployment.environment
        name = f"{self.place.project}-{self.place.name}"
        self.route = ["--resource-group", self.place.group, "--profile-name", f"{name}-edge", "--endpoint-name", name]
        self.firewall = (
            f"{MANAGEMENT}/subscriptions/{deployment.subscription}/resourceGroups/{self.place.group}/providers/Microsoft.Network"
            f"/FrontDoorWebApplicationFirewallPolicies/{name.replace('-', '')}waf?{FIREWALL_VERSION}"
        )

    def addresses(self, change) -> list[str]:
        """Replaces the denied addresses by what `change` makes of them."""
        policy = self.az.rest("get", self.firewall, assume={"location": "global", "sku": {}, "properties": {"customRules": {"rules": []}}})
        rules = policy["properties"].setdefault("customRules", {}).setdefault("rules", [])
        there = next((rule["matchConditions"][0]["matchValue"] for rule in rules if rule["name"] == RULE), [])
        wanted = change(there)
        if wanted == there and not self.az.dry:
            return wanted
        policy["properties"]["customRules"]["rules"] = [rule for rule in rules if rule["name"] != RULE] + (
            [{"name": RULE, "priority": 5, "enabledState": "Enabled", "ruleType": "MatchRule", "action": "Block",
              "matchConditions": [{"matchVariable": "SocketAddr", "operator": "IPMatch", "matchValue": wanted}]}] if wanted else []
        )  # fmt: skip
        body = {key: policy[key] for key in ("location", "tags", "sku", "etag") if key in policy}
        # What Azure says of itself is not sent back.
        body["properties"] = {key: value for key, value in policy["properties"].items() if key in ("policySettings", "customRules", "managedRules")}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "firewall.json"
            file.write_text(json.dumps(body))
            self.az("rest", "--method", "put", "--url", self.firewall, "--body", f"@{file}" if not self.az.dry else "@<firewall>", "--query", "name")
        return wanted

    def everybody(self, denied: bool, routes: list[str]) -> None:
        for route in routes:
            self.az("afd", "route", "update", *self.route, "--route-name", route, "--enabled-state", "Disabled" if denied else "Enabled", "--query", "enabledState")


class Apps:
    """Access restrictions of both apps, where there is no Front Door."""

    def __init__(self, deployment: Deployment):
        self.az, self.place = deployment.az, deployment.environment

    def _apps(self, routes: list[str]) -> list[tuple[str, str]]:
        return [pair for route, pair in (("webhooks", ("functionapp", self.place.handlers)), ("server", ("webapp", self.place.server))) if route in routes]

    def addresses(self, change, routes: list[str] = list(ROUTES)) -> list[str]:
        for kind, app in self._apps(routes):
            where = ["--resource-group", self.place.group, "--name", app]
            told = self.az(kind, "config", "access-restriction", "show", *where, assume={}) or {}
            there = [rule["ip_address"] for rule in told.get("ipSecurityRestrictions", []) if str(rule.get("name", "")).startswith(RULE) and rule.get("ip_address")]
            wanted = change(there)
            for address in [address for address in there if address not in wanted]:
                self.az(kind, "config", "access-restriction", "remove", *where, "--ip-address", address, "--action", "Deny", "--query", "length(ipSecurityRestrictions)")
            for address in [address for address in wanted if address not in there]:
                self.az(kind, "config", "access-restriction", "add", *where, "--rule-name", RULE, "--priority", "5", "--action", "Deny", "--ip-address", address, "--query", "length(ipSecurityRestrictions)")
        return wanted

    def everybody(self, denied: bool, routes: list[str]) -> None:
        everywhere = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]
        self.addresses((lambda there: sorted({*there, *everywhere})) if denied else (lambda there: [address for address in there if address not in everywhere]), routes)


def main(description: str) -> int:
    from .commands import add_common

    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("environment", help="dev, staging or prod")
    made.add_argument("--address", action="append", default=[], metavar="CIDR", help="deny this address or range; may be repeated")
    made.add_argument("--everybody", action="store_true", help="deny all requests")
    made.add_argument("--route", action="append", choices=ROUTES, help="with --everybody: webhooks or the server alone (default: both)")
    made.add_argument("--lift", action="store_true", help="let those in again that are named; with neither --address nor --everybody all of them")
    made.add_argument("--reason", default="", help="stands in the log; needed to deny")
    add_common(made)
    options = made.parse_args()
    if not options.lift and not options.address and not options.everybody:
        made.error("whom to deny: --address CIDR or --everybody")
    if not options.lift and not options.reason:
        made.error("--reason is needed: the next who looks wants to know")
    addresses = [network(text) for text in options.address]
    Parameters(options.environment)
    deployment = open_deployment(options)
    edge = Edge(deployment) if deployment.environment.outputs.get("EDGE_URL") else Apps(deployment)
    routes = options.route or list(ROUTES)
    everything = options.lift and not addresses and not options.everybody
    if options.everybody or everything:
        edge.everybody(not options.lift, routes)
    if addresses or everything:
        left = edge.addresses((lambda there: [] if everything else [one for one in there if one not in addresses]) if options.lift else (lambda there: sorted({*there, *addresses})))
        say(f"denied: {', '.join(left) or 'nobody by address'}")
    deployment.store.read()
    deployment.store.log("emergency-deny", deployment.who, "lifted" if options.lift else "denied", addresses=addresses, everybody=options.everybody, reason=options.reason)
    if not options.lift:
        say(
            f"It holds until `scripts/emergency-deny {options.environment} --lift`, or the next deployment of the infrastructure. To keep addresses denied: `deniedAddresses` in the parameter file. "
            "To stop a source, caller, route or model instead: docs/runbooks/emergency-deny.md."
        )
    return 0


def network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise Failed(f"--address {text}: {error}") from None
