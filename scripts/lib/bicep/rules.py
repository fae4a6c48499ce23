"""Our own rules, about what each parameter file makes of the templates (ARCHITECTURE.md, requirements K1 to K9)."""

import re

from .evaluate import Deployed, World
from .settings import Settings
from .syntax import File, Finding, Node
from .wanted import (
    ADMINISTRATOR,
    CLIENTS_OF_THE_POOLER,
    CLOSED,
    DATABASE,
    DATABASE_IN_PROD,
    DATABASE_PARAMETERS,
    DELEGATED,
    DIAGNOSED,
    HANDLERS,
    LISTS,
    LOG_CATEGORIES,
    LOG_GROUPS,
    METRIC_CATEGORIES,
    MODELS,
    OFFICER,
    PLATFORM_SETTINGS,
    REDIS,
    ROLES,
    SECRET_WORDS,
    SERVER,
    SERVER_SETTINGS,
    SERVICE_TAGS,
    SITE,
    STICKY,
    STORAGE,
    TAGGED_CHILDREN,
    TAGS,
    TELEMETRY,
    UNTAGGED,
    VAULT,
    VAULT_IN_PROD,
    ZONES,
)

def at(body: dict, path: str):
    for step in path.split("."):
        body = body.get(step) if isinstance(body, dict) else None
    return body


class Rules:
    """One environment's resources against the rules."""

    def __init__(self, world: World, parameters: File, settings: Settings):
        self.world, self.parameters, self.settings = world, parameters, settings
        self.name = world.parameters.get("environmentName", parameters.path.stem)
        self.prod = self.name == "prod"
        self.findings: list[Finding] = []

    def find(self, rule: str, made: Deployed, message: str, path: str = "") -> None:
        self.findings.append(Finding(made.file.name, line_of(made, path), rule, f"[{self.name}] {made.declaration.name}: {message}"))

    def wrong(self, rule: str, message: str, parameter: str = "") -> None:
        stated = self.parameters.declarations.get(parameter)
        self.findings.append(Finding(self.parameters.name, stated.line if stated else 1, rule, f"[{self.name}] {message}"))

    def of(self, *types: str) -> list[Deployed]:
        return [made for made in self.world.resources if made.type in types]

    def check(self) -> list[Finding]:
        if self.parameters.path.stem != self.name:
            self.wrong("environment", f"environmentName is {self.name}, and the file is called {self.parameters.path.stem}", "environmentName")
        for rule in (self.tagged, self.diagnosed, self.roles, self.demanded, self.private, self.network, self.scaling, self.connections, self.app_settings):
            try:
                rule()
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                # A body without what its type requires; that has its own finding. Should it have none, this is one.
                self.wrong("evaluate", f"the rule {rule.__name__} could not be applied: {type(error).__name__}: {error}")
        return self.findings

    def tagged(self) -> None:
        for made in self.world.resources:
            if made.type in UNTAGGED or (made.type.count("/") > 1 and made.type not in TAGGED_CHILDREN and not made.type.startswith("Microsoft.Network/private")):
                continue
            if made.type.endswith("privateDnsZoneGroups"):
                continue
            missing = [tag for tag in TAGS if not (made.body.get("tags") or {}).get(tag)]
            if missing:
                self.find("tags", made, f"without {', '.join(missing)}")

    def diagnosed(self) -> None:
        targets = {made.scope for made in self.of("Microsoft.Insights/diagnosticSettings") if at(made.body, "properties.workspaceId")}
        for made in self.world.resources:
            if made.type in DIAGNOSED and made.id not in targets:
                self.find("diagnostics", made, "no diagnostic settings send its logs to the workspace")

        for made in self.of("Microsoft.Insights/diagnosticSettings"):
            logs, metrics = at(made.body, "properties.logs") or [], at(made.body, "properties.metrics") or []
            stated = [(one.get("categoryGroup"), LOG_GROUPS) for one in logs if one.get("categoryGroup")] + [(one.get("category"), LOG_CATEGORIES) for one in logs if one.get("category")]
            for name, known in stated + [(one.get("category"), METRIC_CATEGORIES) for one in metrics]:
                if name not in known:
                    self.find("diagnostics", made, f"{name} is none of {', '.join(sorted(known))}", "properties")

    def roles(self) -> None:
        for made in self.of("Microsoft.Authorization/roleAssignments"):
            role = str(at(made.body, "properties.roleDefinitionId")).rsplit("/", 1)[-1]
            principal = str(at(made.body, "properties.principalId"))
            if role == OFFICER:
                self.find("roles", made, "nobody is given Key Vault Secrets Officer: it deletes and purges", "properties.roleDefinitionId")
            elif role not in ROLES:
                self.find("roles", made, f"{role} is no role that scripts/lib/bicep/wanted.py knows", "properties.roleDefinitionId")
            if "/providers/Microsoft.Authorization/roleDefinitions/" not in str(at(made.body, "properties.roleDefinitionId")):
                self.find("roles", made, "roleDefinitionId is the id of a role definition", "properties.roleDefinitionId")
            if role == ADMINISTRATOR and at(made.body, "properties.principalType") != "Group":
                self.find("roles", made, "only the break-glass group administers the vault", "properties.principalType")
            if not at(made.body, "properties.principalType"):
                self.find("roles", made, "principalType is missing: a new identity is not found without it")
            developers = self.world.parameters.get("developersGroupId")
            if self.prod and developers and principal == developers:
                self.find("roles", made, "developers have no role in prod")
        users = [str(made.body.get("name", "")) for made in self.of("Microsoft.ManagedIdentity/userAssignedIdentities")]
        if len(set(users)) < 2:
            self.wrong("roles", "each of the two apps has an identity of its own")

    def demanded(self) -> None:
        self.demand("vault", self.of("Microsoft.KeyVault/vaults"), VAULT | (VAULT_IN_PROD if self.prod else {}))
        self.demand("storage", self.of("Microsoft.Storage/storageAccounts"), STORAGE)
        self.demand("database", self.of("Microsoft.DBforPostgreSQL/flexibleServers"), DATABASE | (DATABASE_IN_PROD if self.prod else {}))
        for made in self.of("Microsoft.DBforPostgreSQL/flexibleServers/configurations"):
            name, value = made.body.get("name"), at(made.body, "properties.value")
            if name not in DATABASE_PARAMETERS:
                self.find("database", made, f"{name} is no server parameter that scripts/lib/bicep/wanted.py knows")
            elif DATABASE_PARAMETERS[name] not in (None, value):
                self.find("database", made, f"{name} is {value}, and must be {DATABASE_PARAMETERS[name]}")
        for made in self.world.resources:
            access = at(made.body, "properties.publicNetworkAccess")
            if access not in (None, "Enabled", "Disabled"):
                self.find("private", made, f"publicNetworkAccess is {access!r}", "properties.publicNetworkAccess")
        self.demand("redis", self.of("Microsoft.Cache/redisEnterprise/databases"), REDIS)
        self.demand("models", self.of("Microsoft.CognitiveServices/accounts"), MODELS)
        self.demand("telemetry", self.of("Microsoft.Insights/components"), TELEMETRY)
        for made in self.of("Microsoft.Web/sites", "Microsoft.Web/sites/slots"):
            functions = str(made.body.get("kind", "")).startswith("functionapp")
            self.demand("server" if not functions else "handlers", [made], SITE | HANDLERS if functions else SERVER)
            if functions:
                if (at(made.body, "properties.functionAppConfig.scaleAndConcurrency.maximumInstanceCount") or 0) < 40:
                    self.find("handlers", made, "Flex Consumption has at least 40 as its most instances")
                continue
            settings = app_settings(made)
            for name, value in SERVER_SETTINGS.items():
                if settings.get(name) != value:
                    self.find("server", made, f"{name} is {settings.get(name)!r}, and must be {value!r}", "properties.siteConfig")
            if "exec " not in str(at(made.body, "properties.siteConfig.appCommandLine")):
                self.find("server", made, "appCommandLine must `exec` the program, so that SIGTERM reaches it", "properties.siteConfig")
        slots = self.of("Microsoft.Web/sites/slots")
        if slots and not self.prod:
            self.find("server", slots[0], "slots are for prod only")
        if self.prod and not slots:
            self.wrong("server", "prod has a slot to swap from", "serverSlot")
        if slots:
            sticky = [made for made in self.of("Microsoft.Web/sites/config") if made.body.get("name") == "slotConfigNames"]
            names = set(at(sticky[0].body, "properties.appSettingNames") or []) if sticky else set()
            for missing in sorted(STICKY - names):
                self.find("server", sticky[0] if sticky else slots[0], f"{missing} must stay where it is in a swap")
            app = next(made for made in self.of("Microsoft.Web/sites") if not str(made.body.get("kind")).startswith("functionapp"))
            own, theirs = app_settings(app), app_settings(slots[0])
            for name in sorted(names):
                if not self.settings.knows(name):
                    self.find("server", sticky[0], f"{name} is to stay in a swap, and is no setting")
            for name in sorted(set(own) | set(theirs)):
                if own.get(name) != theirs.get(name) and name not in names:
                    self.find("server", slots[0], f"{name} differs in the slot, and would go over in a swap: make it sticky")
            for name in theirs:
                if name.startswith("REDIS_"):
                    self.find("server", slots[0], f"{name}: the slot is one instance, and shares with nobody")
            for name in sorted(STICKY - {"APPLICATIONINSIGHTS_CONNECTION_STRING"}):
                if own.get(name) == theirs.get(name):
                    self.find("server", slots[0], f"{name} is the same in the slot: it would take work of production")
        plans = [made for made in self.of("Microsoft.Web/serverfarms") if at(made.body, "sku.tier") != "FlexConsumption"]
        for plan in plans:
            if self.prod and not re.fullmatch(r"P\d+m?v[3-9]", str(at(plan.body, "sku.name"))):
                self.find("server", plan, f"prod has Premium v3 or newer, not {at(plan.body, 'sku.name')}")
        if self.prod and not self.of("Microsoft.Insights/autoscalesettings"):
            self.wrong("server", "prod scales by load", "serverAutoscale")
        if not self.of("Microsoft.Consumption/budgets"):
            self.wrong("budget", "there is no budget")
        for budget in self.of("Microsoft.Consumption/budgets"):
            told = {item.get("threshold") for item in (at(budget.body, "properties.notifications") or {}).values() if item.get("enabled")}
            if not {80, 100} <= told:
                self.find("budget", budget, "it tells at 80 % and at 100 %")

    def demand(self, rule: str, resources: list[Deployed], wanted: dict) -> None:
        for made in resources:
            for path, value in wanted.items():
                given = at(made.body, f"properties.{path}")
                if given not in (value if isinstance(value, tuple) else (value,)) or isinstance(given, bool) != isinstance(value, bool):
                    self.find(rule, made, f"{path} is {given!r}, and must be {value!r}", f"properties.{path}")

    def private(self) -> None:
        private = self.world.parameters.get("privateNetwork")
        if self.prod and not private:
            self.wrong("private", "prod is in a private network", "privateNetwork")
        if not (self.prod or private):
            return
        reached = set()
        for made in self.of("Microsoft.Network/privateEndpoints"):
            for connection in at(made.body, "properties.privateLinkServiceConnections") or []:
                for group in at(connection, "properties.groupIds") or []:
                    reached.add((at(connection, "properties.privateLinkServiceId"), group))
        used_queues = {made.id.rsplit("/queueServices/", 1)[0] for made in self.of("Microsoft.Storage/storageAccounts/queueServices")}
        for made in self.of(*CLOSED):
            if at(made.body, "properties.publicNetworkAccess") != "Disabled":
                self.find("private", made, "publicNetworkAccess must be Disabled", "properties.publicNetworkAccess")
            for group in CLOSED[made.type] + (["queue"] if made.id in used_queues else []):
                if (made.id, group) not in reached:
                    self.find("private", made, f"no private endpoint leads to its {group}")
        for made in self.of("Microsoft.DBforPostgreSQL/flexibleServers"):
            if at(made.body, "properties.network.publicNetworkAccess") != "Disabled" or not at(made.body, "properties.network.delegatedSubnetResourceId"):
                self.find("private", made, "PostgreSQL stands in a subnet of its own, without public access", "properties.network")
        for made in self.of("Microsoft.Web/sites", "Microsoft.Web/sites/slots"):
            if not at(made.body, "properties.virtualNetworkSubnetId"):
                self.find("private", made, "it must go out through the network", "properties.virtualNetworkSubnetId")
            routed = at(made.body, "properties.outboundVnetRouting.allTraffic") or at(made.body, "properties.siteConfig.vnetRouteAllEnabled")
            if not routed:
                self.find("private", made, "all of its outbound traffic goes through the network", "properties")
            fenced = at(made.body, "properties.siteConfig.ipSecurityRestrictionsDefaultAction") == "Deny"
            if self.of("Microsoft.Cdn/profiles") and not fenced:
                self.find("private", made, "with Front Door, it takes requests from nobody else", "properties.siteConfig.ipSecurityRestrictionsDefaultAction")

            for binding in self.of("Microsoft.Web/sites/hostNameBindings") if self.of("Microsoft.Cdn/profiles") else []:
                self.find("private", binding, "with Front Door, one's own name is its: the app would refuse who comes by it")

    def network(self) -> None:
        for made in self.of("Microsoft.Network/virtualNetworks"):
            delegated = set()
            for subnet in at(made.body, "properties.subnets") or []:
                if not at(subnet, "properties.addressPrefix"):
                    self.find("network", made, f"the subnet {subnet['name']} has no addresses", "properties.subnets")
                if subnet["name"] != "AzureBastionSubnet" and not at(subnet, "properties.networkSecurityGroup.id"):
                    self.find("network", made, f"the subnet {subnet['name']} has no network security group", "properties.subnets")
                delegated |= {at(one, "properties.serviceName") for one in at(subnet, "properties.delegations") or []}
            for service in sorted(DELEGATED - delegated):
                self.find("network", made, f"no subnet is delegated to {service}", "properties.subnets")
        for made in self.of("Microsoft.Network/privateDnsZones"):
            if not ZONES.fullmatch(str(made.body.get("name"))):
                self.find("network", made, f"{made.body.get('name')} is no zone that anything of ours is found in")
        for made in self.of("Microsoft.Network/networkSecurityGroups"):
            rules = [rule["properties"] for rule in at(made.body, "properties.securityRules") or []]
            orders = [(rule["direction"], rule["priority"]) for rule in rules]
            if len(set(orders)) != len(orders):
                self.find("network", made, "two rules of one direction have one priority", "properties.securityRules")
            if not any(rule["access"] == "Deny" and rule.get("destinationPortRange") == "*" for rule in rules):
                self.find("network", made, "what no rule allows must be denied by the last", "properties.securityRules")
            open_to_all = [rule for rule in rules if rule["access"] == "Allow" and rule["direction"] == "Inbound" and rule.get("sourceAddressPrefix") in ("*", "Internet")]
            if open_to_all:
                self.find("network", made, "nothing comes in from everywhere", "properties.securityRules")
            for rule in rules:
                for part in ("sourceAddressPrefix", "destinationAddressPrefix", "sourcePortRange", "destinationPortRange"):
                    if not (rule.get(part) or rule.get(part + ("s" if part.endswith("Range") else "es"))):
                        self.find("network", made, f"a rule needs {part}", "properties.securityRules")
                for side in ("sourceAddressPrefix", "destinationAddressPrefix"):
                    if side in rule and rule[side] not in SERVICE_TAGS and not re.fullmatch(r"[\d.]+/\d+", str(rule[side])):
                        self.find("network", made, f"{rule[side]} is no address and none of {', '.join(sorted(SERVICE_TAGS))}", "properties.securityRules")
                ports = set(rule.get("destinationPortRanges", []))
                if rule["access"] == "Allow" and ports & {"5432", "6432"} and not {"5432", "6432"} <= ports:
                    self.find("network", made, "PostgreSQL and PgBouncer: 5432 and 6432 go together", "properties.securityRules")

    def scaling(self) -> None:
        for made in self.of("Microsoft.Insights/autoscalesettings"):
            for profile in at(made.body, "properties.profiles") or []:
                bounds = profile["capacity"]
                if self.prod and not (2 <= int(bounds["minimum"]) <= int(bounds["maximum"]) <= 6):
                    self.find("scaling", made, "prod has 2 to 6 instances", "properties.profiles")
                thresholds: dict = {}
                for rule in profile["rules"]:
                    trigger, action = rule["metricTrigger"], rule["scaleAction"]
                    thresholds[trigger["metricName"], action["direction"]] = trigger["threshold"]
                    minutes = int(re.sub(r"\D", "", action["cooldown"]))
                    if action["direction"] == "Decrease" and minutes < 10:
                        self.find("scaling", made, "scaling in waits ten minutes: instances drain first", "properties.profiles")
                for (metric, direction), value in thresholds.items():
                    if direction == "Increase" and not thresholds.get((metric, "Decrease"), value) < value:
                        self.find("scaling", made, f"{metric} scales in where it scales out, or never", "properties.profiles")
                if (thresholds.get(("CpuPercentage", "Increase")), thresholds.get(("CpuPercentage", "Decrease"))) != (70, 30):
                    self.find("scaling", made, "processors: 70 % out, 30 % in", "properties.profiles")

    def connections(self) -> None:
        """Instances × pool against what the server, or its pooler, takes."""
        given = self.world.parameters
        limit = given.get("databaseConnections")
        if not isinstance(limit, int):
            return
        asked, users = 0, 0
        for made in self.of("Microsoft.Web/sites", "Microsoft.Web/sites/slots"):
            pool = int(app_settings(made).get("DB_POOL_SIZE", "4"))
            functions = str(made.body.get("kind", "")).startswith("functionapp")
            if functions:
                instances = at(made.body, "properties.functionAppConfig.scaleAndConcurrency.maximumInstanceCount") or 100
            elif made.type.endswith("slots"):
                instances = 1
            else:
                scaling = [int(at(one, "capacity.maximum")) for rule in self.of("Microsoft.Insights/autoscalesettings") for one in at(rule.body, "properties.profiles")]
                plans = [at(plan.body, "sku.capacity") for plan in self.of("Microsoft.Web/serverfarms") if at(plan.body, "sku.tier") != "FlexConsumption"]
                instances = max([*scaling, *[plan or 1 for plan in plans]])
            asked, users = asked + instances * pool, users + 1
        pooled = next((made for made in self.of("Microsoft.DBforPostgreSQL/flexibleServers/configurations") if made.body.get("name") == "pgbouncer.enabled"), None)
        size = next((made for made in self.of("Microsoft.DBforPostgreSQL/flexibleServers/configurations") if made.body.get("name") == "pgbouncer.default_pool_size"), None)
        if pooled is None:
            if asked > limit:
                self.wrong("connections", f"instances × pool is {asked}, and the server takes {limit}", "databaseConnections")
            return
        if asked > CLIENTS_OF_THE_POOLER:
            self.wrong("connections", f"instances × pool is {asked}, and PgBouncer takes {CLIENTS_OF_THE_POOLER}", "handlersMaximumInstances")
        opened = users * int(at(size.body, "properties.value") if size else 50)
        if opened > limit:
            self.wrong("connections", f"PgBouncer opens up to {opened} connections, and the server takes {limit}", "databasePoolSize")

    def app_settings(self) -> None:
        set_by_us = set()
        for made in self.of("Microsoft.Web/sites", "Microsoft.Web/sites/slots"):
            settings = app_settings(made)
            set_by_us |= set(settings)
            for name, value in sorted(settings.items()):
                if not self.settings.knows(name) and name not in PLATFORM_SETTINGS:
                    self.find("settings", made, f"{name} is no setting of docs/settings.md, of the platform, or of colloquy.toml")
                reference = str(value).startswith("@Microsoft.KeyVault(")
                if self.settings.secret(name) and value and not reference and not name.startswith(("DATABASE_", "REDIS_URL", "APPLICATIONINSIGHTS_")):
                    self.find("settings", made, f"{name} is a secret: it comes from the vault")
                if reference and not re.fullmatch(r"@Microsoft\.KeyVault\(SecretUri=https://[^/]+/secrets/[a-z0-9-]+/\)", str(value)):
                    self.find("settings", made, f"{name}: a reference is `@Microsoft.KeyVault(SecretUri=…/secrets/{{app}}-{{component}}-{{purpose}}/)`, with its slash")
                if reference and (source := re.fullmatch(r"WEBHOOK_SECRET_([A-Z0-9_]+?)(__[A-Z0-9_]+)?", name)):
                    meant = source[1].lower().replace("_", "-") + "-webhook"
                    if f"-{meant}" not in str(value):
                        self.find("settings", made, f"{name}: its secret is called {{app}}-{meant}, by which its rotation is followed")
            functions = str(made.body.get("kind", "")).startswith("functionapp")
            for name in self.settings.structure() if functions else []:
                if name not in settings:
                    self.find("settings", made, f"{name} is missing: colloquy.toml needs it")
        for name in self.settings.decided():
            if name not in set_by_us and name not in self.settings.left:
                self.wrong("settings", f"{name} of docs/settings.md is neither set nor left to its default in bicep/settings.json")


def app_settings(made: Deployed) -> dict:
    return {item["name"]: item["value"] for item in at(made.body, "properties.siteConfig.appSettings") or []}


def line_of(made: Deployed, path: str) -> int:
    """The line that states a property, as far as it stands in the open."""
    line, node = made.declaration.line, made.declaration.value
    for step in filter(None, path.split(".")):
        while node is not None and node.kind in ("name", "call"):
            if node.kind == "name":
                known = made.file.declarations.get(str(node.value))
                node = known.value if known and known.kind == "var" else None
            else:
                node = next((part for part in node.parts[1:] if part.kind in ("object", "name")), None)
        if node is None or node.kind != "object":
            break
        item = next((item for item in node.parts if item.key == step), None)
        if item is None:
            line = node.line if node.line > line else line
            break
        line, node = item.line, item.value
    return line


def roles_of_groups(file: File) -> list[Finding]:
    """Roles without `scope` would hold for the whole resource group."""
    given = [made for made in file.of("resource") if made.target.startswith("Microsoft.Authorization/roleAssignments@")]
    return [
        Finding(file.name, made.line, "roles", f"{made.name}: a role is given on one resource (`scope`), not on the whole group")
        for made in given
        if all(item.key != "scope" for item in made.value.parts)
    ]


def secrets_in_outputs(file: File) -> list[Finding]:
    """Outputs stand in the deployment's history, for everybody who may read it."""
    found = []
    secure = {parameter.name for parameter in file.of("param") if "secure" in parameter.decorators}

    def walk(node: Node, output) -> None:
        if node.kind == "name" and node.value in secure:
            found.append(Finding(file.name, output.line, "secret-output", f"{output.name} gives away {node.value}, which is @secure"))
        if node.kind == "call" and LISTS.match(str(node.value)):
            found.append(Finding(file.name, output.line, "secret-output", f"{output.name} gives away what {node.value}() lists"))
        if node.kind == "member" and SECRET_WORDS.search(str(node.value)):
            found.append(Finding(file.name, output.line, "secret-output", f"{output.name} gives away {node.value}"))
        for part in node.parts:
            if isinstance(part, Node):
                walk(part, output)
            elif hasattr(part, "value") and isinstance(part.value, Node):
                walk(part.value, output)

    for output in file.outputs.values():
        walk(output.value, output)
    return found
