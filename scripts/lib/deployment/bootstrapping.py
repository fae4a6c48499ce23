"""From a subscription to an environment that only lacks its programs. Every part may be run again; what is there stays.

Parts, in order: `providers`; `identity` (group, store of releases, identities of pipelines); `infrastructure` (Bicep);
`roles` (what the deploy identity may); `secrets`; `database` (roles in PostgreSQL).
"""

import argparse
import hashlib
import json
import os
import re
import secrets as randomness
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import settings as generated

from . import roles
from .az import Az, Failed, Missing, Refused, say
from .store import CONTAINER, account_name
from .target import BICEP, MANAGEMENT, ROOT, Environment, Parameters, find

PARTS = ("providers", "identity", "infrastructure", "roles", "secrets", "database")
PROVIDERS = "App Web DBforPostgreSQL Cache CognitiveServices KeyVault Storage Network Insights OperationalInsights ManagedIdentity Cdn Consumption EventGrid AlertsManagement".split()
# Built-in roles.
WEBSITE_CONTRIBUTOR = "de139f84-1756-47ae-9be6-808fbbe84772"
MONITORING_READER = "43d0d8ad-25c7-4714-9337-8ba259a9fe05"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"
ROLE_ADMINISTRATOR = "f58310d9-a9f6-439a-9e8d-f62e7b41a168"
BLOB_CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
# What the templates give to the apps and to people, and so all that the identity of infrastructure may give.
GIVEN = sorted({found for file in BICEP.rglob("*.bicep") for found in re.findall(r"^var \w+ = '([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})'$", file.read_text(), re.M)})
AUDIENCE = "api://AzureADTokenExchange"
GITHUB = "https://token.actions.githubusercontent.com"


@dataclass
class Bootstrap:
    az: Az
    options: argparse.Namespace
    parameters: Parameters
    subscription: str

    @property
    def environment(self) -> str:
        return self.options.environment

    @property
    def project(self) -> str:
        return str(self.parameters.get("project"))

    @property
    def location(self) -> str:
        return str(self.parameters.get("location"))

    @property
    def group(self) -> str:
        return f"rg-{self.project}-deploy"

    def run(self) -> None:
        for part in self.options.only or PARTS:
            say(f"{part}:")
            getattr(self, part)()

    # -- providers ----------------------------------------------------------------------------------------------

    def providers(self) -> None:
        for name in PROVIDERS:
            state = self.az("provider", "show", "--namespace", f"Microsoft.{name}", "--query", "registrationState", assume="NotRegistered")
            if state != "Registered":
                self.az("provider", "register", "--namespace", f"Microsoft.{name}", "--wait")

    # -- identity -----------------------------------------------------------------------------------------------

    def identity(self) -> None:
        tags = [f"project={self.project}", "environment=deploy", f"owner={os.environ.get('COLLOQUY_OWNER', 'unknown')}"]
        self.az("group", "create", "--name", self.group, "--location", self.location, "--tags", *tags)
        self._store(tags)
        deploy = self._identity("deploy", tags)
        self._federate("deploy", f"environment:{self.environment}")
        infrastructure = self._identity("infrastructure", tags)
        self._federate("infrastructure", f"environment:{self.environment}-infrastructure")
        preview = self._identity("what-if", tags)
        self._federate("what-if", "pull_request")
        # Its own, since it works every night without anybody's approval: it reads rows and writes exports, and deploys nothing.
        export = self._identity("export", tags)
        self._federate("export", f"environment:{self.environment}-export")
        scope = f"/subscriptions/{self.subscription}"
        store = f"{scope}/resourceGroups/{self.group}/providers/Microsoft.Storage/storageAccounts/{self.account}"
        self._assign(deploy, BLOB_CONTRIBUTOR, store)
        # Outputs of the infrastructure's deployment stand at the subscription.
        self._assign(deploy, READER, scope)
        self._assign(export, READER, scope)
        self._assign(infrastructure, CONTRIBUTOR, scope)
        self._assign(infrastructure, ROLE_ADMINISTRATOR, scope, condition=condition())
        # Reads everything and may ask what a deployment would do; may not deploy.
        self._custom_role(preview, "what-if", "Asks what a deployment would change.", ["*/read", "Microsoft.Resources/deployments/whatIf/action", "Microsoft.Resources/deployments/validate/action"], scope)
        for name, who in (("deploy", deploy), ("infrastructure", infrastructure), ("what-if", preview), ("export", export)):
            say(f"  {name}: client id {who['clientId']}")

    @property
    def account(self) -> str:
        return account_name(self.project, self.subscription)

    def _store(self, tags: list[str]) -> None:
        """Reached with tokens alone, from any network: it holds programs and nobody's data. In two regions, so that a lost one
        can be built anew."""
        self.az(
            "storage", "account", "create", "--name", self.account, "--resource-group", self.group, "--location", self.location, "--kind", "StorageV2", "--sku", "Standard_GRS",
            "--allow-blob-public-access", "false", "--allow-shared-key-access", "false", "--min-tls-version", "TLS1_2", "--https-only", "true", "--tags", *tags,
        )  # fmt: skip
        url = f"{MANAGEMENT}/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/Microsoft.Storage/storageAccounts/{self.account}/blobServices/default"
        # By the management interface: it needs no role on data, which takes minutes to arrive.
        self.az.rest("put", f"{url}/containers/{CONTAINER}?api-version=2023-05-01", {"properties": {"publicAccess": "None"}})
        self.az.rest("put", f"{url}?api-version=2023-05-01", {"properties": {"isVersioningEnabled": True, "deleteRetentionPolicy": {"enabled": True, "days": 30}}})
        if self.options.store_reader:
            try:
                me = self.az("ad", "signed-in-user", "show", "--query", "id", assume="<ME>")
            except Refused as refused:
                raise Failed(f"{refused}\nA service principal is nobody's user: pass --no-store-reader.") from None
            self._assign({"principalId": me}, BLOB_CONTRIBUTOR, f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/Microsoft.Storage/storageAccounts/{self.account}", kind="User")

    def _identity(self, purpose: str, tags: list[str]) -> dict:
        name = f"{self.project}-{self.environment}-{purpose}"
        assumed = {"principalId": f"<{purpose.upper()} PRINCIPAL>", "clientId": f"<{purpose.upper()} CLIENT>"}
        return self.az("identity", "create", "--name", name, "--resource-group", self.group, "--location", self.location, "--tags", *tags,
                       "--query", "{principalId: principalId, clientId: clientId}", assume=assumed)  # fmt: skip

    def _federate(self, purpose: str, subject: str) -> None:
        """Whose tokens are taken for this identity: no secret is kept anywhere."""
        name = f"{self.project}-{self.environment}-{purpose}"
        wanted = []
        if self.options.github:
            wanted.append(("github", GITHUB, f"repo:{self.options.github}:{subject}"))
        if self.options.devops_issuer and purpose != "what-if":
            wanted.append(("azure-devops", self.options.devops_issuer, self.options.devops_subject.replace("{purpose}", purpose).replace("{environment}", self.environment)))
        for kind, issuer, who in wanted:
            self.az("identity", "federated-credential", "create", "--name", kind, "--identity-name", name, "--resource-group", self.group,
                    "--issuer", issuer, "--subject", who, "--audiences", AUDIENCE)  # fmt: skip

    def _assign(self, who: dict, role: str, scope: str, kind: str = "ServicePrincipal", condition: str = "") -> None:
        more = ["--condition", condition, "--condition-version", "2.0"] if condition else []
        try:
            self.az("role", "assignment", "create", "--assignee-object-id", who["principalId"], "--assignee-principal-type", kind, "--role", role, "--scope", scope, *more)
        except Refused as refused:
            if "RoleAssignmentExists" not in refused.said:
                raise

    def _custom_role(self, who: dict, purpose: str, description: str, actions: list[str], scope: str) -> None:
        """A role that Azure has not, made once in the subscription, and given where it is needed."""
        name = f"{self.project} {purpose}"
        role = {"Name": name, "Description": description, "AssignableScopes": [f"/subscriptions/{self.subscription}"], "Actions": actions}
        there = self.az("role", "definition", "list", "--name", name, "--custom-role-only", "true", "--query", "[].name", assume=[])
        if not there:
            self.az("role", "definition", "create", "--role-definition", json.dumps(role))
        self._assign(who, name, scope)

    # -- infrastructure -----------------------------------------------------------------------------------------

    def infrastructure(self) -> None:
        unset = self.parameters.unset()
        if unset and not self.az.dry:
            raise Failed(f"Set these first, docs/deploy.md says what they are: {', '.join(unset)}.")
        for variable, purpose, role in (("COLLOQUY_PIPELINE_PRINCIPAL_ID", "deploy", "the vault"), ("COLLOQUY_EXPORT_PRINCIPAL_ID", "export", "the exports")):
            if os.environ.get(variable):
                continue
            try:
                os.environ[variable] = self.az("identity", "show", "--name", f"{self.project}-{self.environment}-{purpose}", "--resource-group", self.group,
                                               "--query", "principalId", assume=f"<{purpose.upper()} PRINCIPAL>")  # fmt: skip
            except Missing:
                say(f"  there is no identity {purpose}: no pipeline gets a role on {role}")
        deploy_infrastructure(self.az, self.options, self.parameters)

    # -- roles --------------------------------------------------------------------------------------------------

    def roles(self) -> None:
        """In the environment's own group, which is there by now."""
        who = self.az("identity", "show", "--name", f"{self.project}-{self.environment}-deploy", "--resource-group", self.group,
                      "--query", "{principalId: principalId}", assume={"principalId": "<DEPLOY PRINCIPAL>"})  # fmt: skip
        scope = f"/subscriptions/{self.subscription}/resourceGroups/rg-{self.project}-{self.environment}"
        self._assign(who, WEBSITE_CONTRIBUTOR, scope)
        self._assign(who, MONITORING_READER, scope)
        if self.parameters.get("staticWeb"):
            # Website Contributor knows apps, and no Static Web Apps.
            self._custom_role(who, "console", "Puts pages on Static Web Apps.", ["Microsoft.Web/staticSites/read", "Microsoft.Web/staticSites/listSecrets/action"], scope)

    # -- secrets ------------------------------------------------------------------------------------------------

    def secrets(self) -> None:
        """By the management interface, which a private vault lets in: values travel in a file that only we can read, so that
        neither a shell's history, nor a deployment's, nor a list of processes has them."""
        place = find(self.az, self.environment)
        vault = vault_id(place, self.subscription)
        given = dict(pair.split("=", 1) for pair in self.options.secret)
        wanted = wanted_secrets(self.parameters)
        strange = sorted(set(given) - set(wanted))
        if strange:
            raise Failed(f"--secret {strange[0]}: the parameter file of {self.environment} names no such secret. It names: {', '.join(sorted(wanted))}.")
        made, theirs = [], []
        for purpose, setting in sorted(wanted.items()):
            url = f"{MANAGEMENT}{vault}/secrets/{self.project}-{purpose}?api-version=2023-07-01"
            if purpose not in given:
                try:
                    # Assumed to be missing: a dry run shows what is put.
                    there = self.az.rest("get", url, assume=None)
                except Missing:
                    there = None
                if there:
                    continue
            value = Path(given[purpose]).read_text().rstrip("\n") if purpose in given else self._value(setting)
            put_secret(self.az, url, value, self.options.secret_days)
            (made if purpose in given else theirs if theirs_to_make(setting) else made).append(purpose)
        refresh(self.az, place, self.subscription)
        say(f"  {len(made) + len(theirs)} secrets put, {len(wanted) - len(made) - len(theirs)} were there; they end in {self.options.secret_days} days")
        if theirs:
            say(f"  generated, but their senders make their own: replace by scripts/rotate {self.environment} NAME --file FILE: {', '.join(theirs)}")

    def _value(self, setting: str) -> str:
        if setting == "AUTH_API_KEYS":
            return self._operator_key()
        if setting == "ENCRYPTION_KEY":
            return generated.encoded(32)
        if setting.startswith("CALLBACK_SECRET_"):
            return generated.standard_secret()
        if setting.startswith("WEBHOOK_SECRET_"):
            name = setting.removeprefix("WEBHOOK_SECRET_").lower().replace("_", "-")
            source = tomllib.loads((ROOT / "colloquy.toml").read_text()).get("sources", {}).get(name, {})
            return generated.secret_of(source, name)
        raise Failed(f"Nobody can make a value for {setting}: give it with --secret NAME=FILE.")

    def _operator_key(self) -> str:
        """One key with the scope `operator`; the vault gets its hash, a file of ours the key."""
        key = "clq_" + randomness.token_urlsafe(32)
        file = secret_file(self.az, self.options, "operator-key", key)
        say(f"  the operator's key is in {file}: keep it elsewhere, then delete the file. export COLLOQUY_API_KEY=\"$(cat {file})\"")
        return json.dumps([{"name": "operator", "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": ["operator"], "owner": "operations"}])

    # -- database -----------------------------------------------------------------------------------------------

    def database(self) -> None:
        place = find(self.az, self.environment)
        roles.make(self.az, place, bool(self.parameters.get("privateNetwork")), self.options, folder(self.options) / "roles.sql")


# -- what other scripts use as well -----------------------------------------------------------------------------


def deploy_infrastructure(az: Az, options: argparse.Namespace, parameters: Parameters) -> None:
    file = BICEP / f"{options.environment}.bicepparam"
    name = f"{parameters.get('project')}-{options.environment}"
    where = ["--name", name, "--location", str(parameters.get("location")), "--parameters", str(file.relative_to(ROOT))]
    if options.what_if:
        # Its own coloured text is the point: people read it. Without the right to deploy, Azure must not ask for it.
        looked = ["az", "deployment", "sub", "what-if", *where, "--validation-level", "providerNoRbac"]
        if az.dry:
            print(shlex.join(looked), flush=True)
        elif subprocess.run(looked, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            raise Failed("Azure refuses the templates; its message is above.")
        return
    if not options.yes and not az.dry:
        subprocess.run(["az", "deployment", "sub", "what-if", *where], check=False)
        if not sys.stdin.isatty():
            raise Failed("Nobody is here to say yes. Look at the changes above, then run it again with --yes.")
        if input(f"Deploy this to {options.environment}? [y/N] ").strip().lower() not in ("y", "yes"):
            raise Failed("Nothing was deployed.")
    az("deployment", "sub", "create", *where, "--query", "properties.provisioningState", assume="Succeeded")


def folder(options: argparse.Namespace) -> Path:
    return Path(options.files or ROOT / ".local" / options.environment)


def secret_file(az: Az, options: argparse.Namespace, name: str, value: str) -> Path:
    """A file that only we can read, from its first byte."""
    file = folder(options) / name
    if not az.dry:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
            output.write(value + "\n")
    return file


def vault_id(place: Environment, subscription: str) -> str:
    name = str(place.outputs.get("VAULT_URI", "")).removeprefix("https://").split(".", 1)[0]
    return f"/subscriptions/{subscription}/resourceGroups/{place.group}/providers/Microsoft.KeyVault/vaults/{name}"


def wanted_secrets(parameters: Parameters) -> dict[str, str]:
    """What follows the project in each secret's name, and the setting it is for."""
    return {purpose: setting for app in parameters.secrets().values() for setting, purpose in app.items()}


def refresh(az: Az, place: Environment, subscription: str) -> None:
    """Has the apps read their references again: they keep what they read, also that it failed, for up to a day."""
    sites = [place.site(place.handlers, subscription), place.site(place.server, subscription)]
    if place.slot:
        sites.append(place.site(place.server, subscription, place.slot))
    for site in sites:
        az.rest("post", f"{MANAGEMENT}{site}/config/configreferences/appsettings/refresh?api-version=2022-03-01")


def theirs_to_make(setting: str) -> bool:
    """Senders that show a secret of their own making."""
    return setting in ("WEBHOOK_SECRET_STRIPE", "WEBHOOK_SECRET_CLERK", "WEBHOOK_SECRET_CRM")


def put_secret(az: Az, url: str, value: str, days: float) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "secret.json"
        shown = "@<file>"
        if not az.dry:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as output:
                json.dump({"properties": {"value": value, "attributes": {"enabled": True, "exp": int(time.time() + days * 86400)}}}, output)
            shown = f"@{file}"
        az("rest", "--method", "put", "--url", url, "--body", shown, "--query", "id")


def condition() -> str:
    """The identity of infrastructure gives and takes the apps' roles, and no other: not Owner, not its own."""
    roles = ", ".join(GIVEN)
    write = f"((!(ActionMatches{{'Microsoft.Authorization/roleAssignments/write'}})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {{{roles}}}))"
    delete = f"((!(ActionMatches{{'Microsoft.Authorization/roleAssignments/delete'}})) OR (@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {{{roles}}}))"
    return f"{write} AND {delete}"


def main(description: str) -> int:
    from .commands import parser

    made = parser(description)
    made.add_argument("--only", action="append", choices=PARTS, help="this part alone; may be repeated")
    made.add_argument("--what-if", action="store_true", help="show what the infrastructure's deployment would change, and do nothing else")
    made.add_argument("--yes", action="store_true", help="deploy the infrastructure without asking")
    made.add_argument("--github", default="", metavar="OWNER/REPOSITORY", help="whose workflows may act as the identities")
    made.add_argument("--devops-issuer", default="", metavar="URL", help="issuer that Azure DevOps shows for its service connections")
    made.add_argument("--devops-subject", default="", metavar="TEXT", help="subject it shows; {environment} and {purpose} are replaced")
    made.add_argument("--secret", action="append", default=[], metavar="NAME=FILE", help="the value of a secret, such as stripe-webhook=FILE; may be repeated, and replaces what is there")
    made.add_argument("--secret-days", type=float, default=90, help="days that secrets live (default: %(default)s)")
    made.add_argument("--database-machine", default="Standard_B1s", metavar="SIZE", help="of the machine that gives roles in a private database, for some minutes; '' for none (default: %(default)s)")
    made.add_argument("--files", default="", metavar="FOLDER", help="where files with what was generated go (default: .local/{environment})")
    made.add_argument("--no-store-reader", dest="store_reader", action="store_false", help="do not give yourself a role on the store of releases")
    options = made.parse_args()
    if any("=" not in pair for pair in options.secret):
        made.error("--secret takes NAME=FILE; a value itself would stay in the shell's history")
    if options.devops_issuer and not options.devops_subject:
        made.error("--devops-issuer needs --devops-subject")
    if options.what_if:
        options.only = ["infrastructure"]
    parameters = Parameters(options.environment)
    az = Az(options.dry_run, tries=options.tries, wait=options.retry_wait)
    account = az("account", "show", "--query", "{id: id, user: user.name}", assume={"id": "<SUBSCRIPTION>"})
    Bootstrap(az, options, parameters, account["id"]).run()
    say(f"Next: scripts/package {options.environment}, then scripts/deploy {options.environment}")
    return 0
