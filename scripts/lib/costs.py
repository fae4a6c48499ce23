"""A month's cost of an environment: what its parameter file deploys, at the prices of bicep/prices.json, beside the documents'."""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bicep import evaluate, syntax

ROOT = Path(__file__).resolve().parent.parent.parent


class Unknown(Exception):
    """Something is deployed that has no price."""


@dataclass
class Line:
    part: str
    what: str
    count: float
    price: float
    basis: str

    @property
    def cost(self) -> float:
        return self.count * self.price


@dataclass
class Table:
    prices: dict
    usage: dict
    most: bool
    lines: list[Line] = field(default_factory=list)

    def add(self, part: str, name: str, count: float = 1, factor: float = 1, what: str = "") -> None:
        price = self.prices["month"].get(name)
        if price is None:
            raise Unknown(f"bicep/prices.json has no price for {name}")
        count = max(count - price.get("free", 0), 0)
        self.lines.append(Line(part, what or name, count, price["price"] * factor, price["basis"]))

    def sums(self) -> Counter:
        sums: Counter = Counter()
        for line in self.lines:
            sums[line.part] += line.cost
        return sums


def resources(environment: str) -> tuple[list, dict]:
    folder = ROOT / "bicep"
    parse = syntax.parser()
    files = {path.resolve(): syntax.read(parse, path, str(path.relative_to(ROOT))) for path in sorted([*folder.rglob("*.bicep"), *folder.rglob("*.bicepparam")])}
    path = (folder / f"{environment}.bicepparam").resolve()
    if path not in files:
        raise Unknown(f"there is no bicep/{environment}.bicepparam; there are {', '.join(sorted(file.stem for file in files if file.suffix == '.bicepparam'))}")
    world = evaluate.world(files, files[path])
    if world.findings:
        raise Unknown(f"the templates cannot be worked out: {world.findings[0]}")
    return [made for made in world.resources if made.exists], world.parameters


def priced(environment: str, prices: dict, usage: dict, most: bool) -> Table:
    made, parameters = resources(environment)
    table = Table(prices, usage, most)
    counted: Counter = Counter()
    for resource in made:
        kind, body = resource.type.removeprefix("Microsoft."), resource.body
        sku, properties = (body.get("sku") or {}).get("name"), body.get("properties") or {}
        if kind == "Web/serverfarms" and sku != "FC1":
            instances = parameters.get("serverMaximumInstances", 1) if most else body["sku"]["capacity"]
            table.add("server", f"App Service {sku}", max(instances, body["sku"]["capacity"]))
        elif kind == "Web/sites" and "functionAppConfig" in properties:
            functions(table, properties["functionAppConfig"]["scaleAndConcurrency"])
        elif kind == "DBforPostgreSQL/flexibleServers":
            servers = 2 if properties["highAvailability"]["mode"] != "Disabled" else 1
            table.add("database", f"PostgreSQL {sku}", servers)
            table.add("database", "PostgreSQL storage, GB", properties["storage"]["storageSizeGB"] * servers)
            if properties["backup"]["geoRedundantBackup"] == "Enabled":
                table.add("database", "PostgreSQL geo-redundant backup, GB", properties["storage"]["storageSizeGB"])
        elif kind == "Cache/redisEnterprise":
            nodes = 2 if properties.get("highAvailability") == "Enabled" else 1
            table.add("redis", f"Redis {sku}", 1, nodes / 2, f"Redis {sku}, {nodes} node{'s' * (nodes > 1)}")
        elif kind == "CognitiveServices/accounts/deployments":
            counted[f"model {properties['model']['name']}"] += 1
        elif kind == "Cdn/profiles":
            table.add("edge", f"Front Door {sku}")
        elif kind == "Web/staticSites":
            table.add("console", f"Static Web Apps {sku}")
        elif kind == "Network/bastionHosts":
            table.add("network", f"Bastion {sku}")
        elif kind == "Insights/scheduledQueryRules" and properties.get("enabled"):
            counted["Log alert, every minute" if properties["evaluationFrequency"] == "PT1M" else "Log alert, every 5 min"] += 1
        elif kind == "Insights/metricAlerts" and properties.get("enabled"):
            counted["Metric alert"] += 1
        elif kind in NETWORK:
            counted[NETWORK[kind]] += 1
        elif kind == "OperationalInsights/workspaces":
            telemetry(table, properties)
        elif kind == "KeyVault/vaults":
            table.add("vault", "Key Vault operations, 10,000", 10)
        elif kind not in FREE:
            raise Unknown(f"{resource.type} is deployed, and scripts/lib/costs.py knows neither a price for it nor that it is free")
    for name, count in counted.items():
        if not name.startswith("model "):
            table.add("network" if name in NETWORK.values() else "alerts", name, count)
    models(table, [name.removeprefix("model ") for name in counted if name.startswith("model ")])
    table.add("storage", "Storage, GB", usage["storage, GB"])
    table.add("storage", "Storage operations, 10,000", usage["webhooks, million"] * 100 * 12, what="Storage operations, 12 a webhook, 10,000")
    table.add("network", "Outbound, GB", usage["outbound, GB"])
    return table


NETWORK = {"Network/privateEndpoints": "Private endpoint", "Network/privateDnsZones": "Private DNS zone", "Network/natGateways": "NAT gateway", "Network/publicIPAddresses": "Public address"}
# What costs nothing by itself, or is paid by use and counted above.
FREE = {
    "Web/serverfarms", "Web/sites", "Web/sites/slots", "Web/sites/config", "Web/sites/slots/config", "Web/sites/basicPublishingCredentialsPolicies", "Web/sites/slots/basicPublishingCredentialsPolicies",
    "Web/sites/hostNameBindings", "Web/certificates", "Web/staticSites/customDomains", "Insights/diagnosticSettings", "Insights/actionGroups", "Insights/components", "Insights/workbooks",
    "Insights/autoscalesettings", "Insights/scheduledQueryRules", "Insights/metricAlerts", "Authorization/roleAssignments", "Resources/resourceGroups", "ManagedIdentity/userAssignedIdentities",
    "Storage/storageAccounts", "Storage/storageAccounts/blobServices", "Storage/storageAccounts/blobServices/containers", "Storage/storageAccounts/queueServices",
    "Storage/storageAccounts/queueServices/queues", "Storage/storageAccounts/tableServices", "Storage/storageAccounts/fileServices", "Storage/storageAccounts/managementPolicies",
    "DBforPostgreSQL/flexibleServers/administrators", "DBforPostgreSQL/flexibleServers/databases", "DBforPostgreSQL/flexibleServers/configurations", "DBforPostgreSQL/flexibleServers/firewallRules",
    "Cache/redisEnterprise/databases", "Cache/redisEnterprise/databases/accessPolicyAssignments", "CognitiveServices/accounts", "Network/virtualNetworks", "Network/virtualNetworks/subnets",
    "Network/networkSecurityGroups", "Network/privateDnsZones/virtualNetworkLinks", "Network/privateEndpoints/privateDnsZoneGroups", "Network/FrontDoorWebApplicationFirewallPolicies",
    "Cdn/profiles/afdEndpoints", "Cdn/profiles/afdEndpoints/routes", "Cdn/profiles/originGroups", "Cdn/profiles/originGroups/origins", "Cdn/profiles/customDomains", "Cdn/profiles/securityPolicies",
    "Consumption/budgets", "EventGrid/systemTopics", "EventGrid/systemTopics/eventSubscriptions",
}  # fmt: skip


def functions(table: Table, scale: dict) -> None:
    gigabytes = scale["instanceMemoryMB"] / 1024
    ready = sum(one["instanceCount"] for one in scale["alwaysReady"])
    if ready:
        table.add("functions", "Function instance always ready, GB", ready * gigabytes)
    webhooks = table.usage["webhooks, million"]
    table.add("functions", "Function execution, GB-s", webhooks * 1e6 * table.usage["seconds of a webhook's functions"] * gigabytes)
    # A webhook is received, processed, and on average leads to one job or callback; timers come on top.
    table.add("functions", "Function executions, million", webhooks * 3 + 0.2)


def telemetry(table: Table, properties: dict) -> None:
    most = (properties.get("workspaceCapping") or {}).get("dailyQuotaGb", -1)
    taken = table.usage["telemetry, GB"]
    if table.most and most > 0:
        taken = most * 30
    table.add("telemetry", "Telemetry, GB", taken if most <= 0 else min(taken, most * 30))


def models(table: Table, names: list[str]) -> None:
    """All tokens at the first model's price: the dearer, and what conversations use."""
    if not names:
        return
    price = table.prices["tokens"].get(names[0])
    if price is None:
        raise Unknown(f"bicep/prices.json has no price for tokens of {names[0]}")
    for way in ("in", "out"):
        table.lines.append(Line("models", f"{names[0]}, million tokens {way}", table.usage[f"million tokens {way}"], price[way], price["basis"]))


def show(environment: str, table: Table, prices: dict) -> None:
    print(f"{environment}, a month, in {prices['currency']}; prices of {prices['date']}. {prices['note']}\n")
    for line in sorted(table.lines, key=lambda line: (line.part, -line.cost)):
        print(f"{line.part:<10} {line.what:<48} {line.count:>12,.2f} × {line.price:>10.6g} = {line.cost:>9,.2f}  {'' if line.basis == 'source' else line.basis}")
    total = sum(line.cost for line in table.lines)
    print(f"{'':<10} {'in all':<48} {'':>12}   {'':>10}   {total:>9,.2f}\n")
    documents = {name: row for name, row in prices["documents"].items() if isinstance(row, dict)}
    sums, said = table.sums(), 0.0
    print(f"Beside the documents' table of production ({prices['documents']['note']}):\n")
    print(f"{'documents':<28} {'what they price':<26} {'theirs':>8} {'ours':>9}  why")
    for name, row in documents.items():
        ours = sum(sums[part] for part in row["ours"])
        said += row["price"]
        print(f"{name:<28} {row['told']:<26} {row['price']:>8,.0f} {ours:>9,.0f}  {row['why'] if environment == 'prod' else ''}")
    print(f"{'in all':<28} {'':<26} {said:>8,.0f} {total:>9,.0f}")
    told = {part for row in documents.values() for part in row["ours"]}
    if set(sums) - told:
        raise Unknown(f"the documents' table has no line for {', '.join(sorted(set(sums) - told))}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/cost", description=__doc__)
    parser.add_argument("environment")
    parser.add_argument("--most", action="store_true", help="with as many server instances and as much telemetry as the parameters allow")
    parser.add_argument("--usage", action="append", default=[], metavar="NAME=NUMBER", help="another month than bicep/prices.json states")
    parser.add_argument("--json", action="store_true", help="print the lines as JSON")
    options = parser.parse_args(arguments)
    prices = json.loads((ROOT / "bicep" / "prices.json").read_text())
    usage = dict(prices["usage"].get(options.environment, prices["usage"]["prod"]))
    try:
        for pair in options.usage:
            name, _, number = pair.partition("=")
            if name not in usage:
                raise Unknown(f"--usage {name}: there is no such figure; there are {', '.join(usage)}")
            usage[name] = float(number)
        table = priced(options.environment, prices, usage, options.most)
        if options.json:
            print(json.dumps({"environment": options.environment, "date": prices["date"], "lines": [vars(line) | {"cost": round(line.cost, 2)} for line in table.lines]}, indent=2))
        else:
            show(options.environment, table, prices)
    except (Unknown, ValueError) as problem:
        print(f"scripts/cost: {problem}", file=sys.stderr)
        return 1
    return 0
