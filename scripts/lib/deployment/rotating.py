"""A secret of the vault replaced without an outage: beside the old one where both can hold, else over it.

Sources and targets take any number of secrets at once: the new one gets a label, and the old one goes when nobody uses it.
The encryption key seals with the new one and opens with both. All else gets a new version.
"""

import argparse
import datetime
from pathlib import Path

import settings as generated

from . import watching
from .az import Az, Failed, say
from .bootstrapping import Bootstrap, put_secret, refresh, secret_file, vault_id, wanted_secrets
from .releasing import open_deployment
from .store import now
from .target import MANAGEMENT, Parameters

VERSION = "api-version=2023-07-01"
BESIDE = ("WEBHOOK_SECRET_", "CALLBACK_SECRET_")


class Rotation:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.parameters = Parameters(options.environment)
        wanted = wanted_secrets(self.parameters)
        self.purpose = options.secret.removeprefix(f"{self.parameters.get('project')}-")
        if self.purpose not in wanted:
            raise Failed(f"The parameter file of {options.environment} names no secret {self.purpose}. It names: {', '.join(sorted(wanted))}.")
        self.setting = wanted[self.purpose]
        self.deployment = open_deployment(options)
        self.az: Az = self.deployment.az
        self.place = self.deployment.environment
        self.vault = vault_id(self.place, self.deployment.subscription)

    @property
    def beside(self) -> bool:
        return self.setting.startswith(BESIDE)

    def url(self, purpose: str) -> str:
        return f"{MANAGEMENT}{self.vault}/secrets/{self.place.project}-{purpose}?{VERSION}"

    def reference(self, purpose: str) -> str:
        return f"@Microsoft.KeyVault(SecretUri={self.place.outputs['VAULT_URI']}secrets/{self.place.project}-{purpose}/)"

    # -- begin --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if self.beside:
            self._beside()
        elif self.setting == "ENCRYPTION_KEY":
            self._encryption_key()
        else:
            if not self.options.file:
                raise Failed(f"{self.setting} is made elsewhere: give its new value with --file FILE. Of AUTH_API_KEYS that is the whole list, with the new key added.")
            self._put(self.purpose, Path(self.options.file).read_text().rstrip("\n"))
        self._refresh()
        self.deployment.store.log("rotate", self.deployment.who, "begun", secret=self.purpose, label=self.options.label if self.beside or self.setting == "ENCRYPTION_KEY" else None)
        say(f"Then, {self.options.after_hours:g} h after nobody needs the old one: scripts/rotate {self.place.name} {self.purpose} --finish")

    def _beside(self) -> None:
        label = self.options.label
        purpose, setting = f"{self.purpose}-{label}", f"{self.setting}__{label.upper().replace('-', '_')}"
        self._put(purpose, self._value())
        self._set(setting, self.reference(purpose))
        say(f"  add to handlersSecretNames in bicep/{self.place.name}.bicepparam, or the next deployment of the infrastructure takes it away:\n    {setting}: '{purpose}'")
        whom = "the sender" if self.setting.startswith("WEBHOOK") else "the consumer"
        say(f"  give the new secret to {whom}; `function-handlers rotations labels` shows which one deliveries come under")

    def _encryption_key(self) -> None:
        """What is sealed has to be opened: the old version stays, by its exact address, under a label."""
        old = self.az.rest("get", self.url(self.purpose), assume={"properties": {"secretUriWithVersion": "<VERSION>"}})["properties"]["secretUriWithVersion"]
        setting = f"{self.setting}__{self.options.label.upper().replace('-', '_')}"
        self._set(setting, f"@Microsoft.KeyVault(SecretUri={old})")
        self._await_references()
        self._put(self.purpose, generated.encoded(32) if not self.options.file else Path(self.options.file).read_text().strip())
        say(f"  when every process has it: `function-handlers backfill reseal-secrets`, and wait for its job. Until then an infrastructure deployment must not take {setting} away.")

    def _value(self) -> str:
        if self.options.file:
            return Path(self.options.file).read_text().rstrip("\n")
        value = Bootstrap(self.az, self.options, self.parameters, self.deployment.subscription)._value(self.setting)
        file = secret_file(self.az, self.options, f"{self.purpose}-{self.options.label}", value)
        say(f"  the new value is in {file}: hand it over, then delete the file")
        return value

    def _put(self, purpose: str, value: str) -> None:
        put_secret(self.az, self.url(purpose), value, self.options.secret_days)

    def _set(self, setting: str, value: str) -> None:
        self.az("functionapp", "config", "appsettings", "set", "--resource-group", self.place.group, "--name", self.place.handlers, "--settings", f"{setting}={value}", "--query", "length(@)")

    def _refresh(self) -> None:
        refresh(self.az, self.place, self.deployment.subscription)
        self._await_references()
        watching.smoke(self.az, self.place.handlers_url, self.options, "/api")
        watching.smoke(self.az, self.place.server_url, self.options)

    def _await_references(self) -> None:
        end = now() + datetime.timedelta(minutes=self.options.smoke_minutes)
        while True:
            try:
                watching.references(self.az, self.place, self.deployment.subscription, bool(self.place.slot))
                return
            except Failed:
                if now() >= end:
                    raise
                self.az.sleep(self.options.smoke_interval)

    # -- finish -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        if self.setting == "ENCRYPTION_KEY" and not self.options.resealed:
            raise Failed("What the old key sealed would be lost. Run `function-handlers backfill reseal-secrets`; when its job has succeeded, pass --resealed.")
        if self.beside:
            self._finish_beside()
        else:
            self._finish_over()
        self._refresh()
        self.deployment.store.log("rotate", self.deployment.who, "finished", secret=self.purpose)

    def _finish_beside(self) -> None:
        """The old one is the unlabelled, or the one of --old; the newest stays."""
        old = self.options.old
        purpose = self.purpose if not old else f"{self.purpose}-{old}"
        setting = self.setting if not old else f"{self.setting}__{old.upper().replace('-', '_')}"
        newer = self.az.rest("get", self.url(f"{self.purpose}-{self.options.label}"), assume={"properties": {"attributes": {"created": 0}}})
        self._old_enough(newer["properties"]["attributes"]["created"])
        self.az("functionapp", "config", "appsettings", "delete", "--resource-group", self.place.group, "--name", self.place.handlers, "--setting-names", setting, "--query", "length(@)")
        self.az.rest("patch", self.url(purpose), {"properties": {"attributes": {"enabled": False}}}, "--query", "id")
        say(f"  take {setting} out of bicep/{self.place.name}.bicepparam")

    def _finish_over(self) -> None:
        vault = self.vault.rsplit("/", 1)[-1]
        name = f"{self.place.project}-{self.purpose}"
        versions = self.az("keyvault", "secret", "list-versions", "--vault-name", vault, "--name", name, "--query", "[].{id: id, created: attributes.created, enabled: attributes.enabled}",
                           assume=[{"id": "<OLD>", "created": "1", "enabled": True}, {"id": "<NEW>", "created": "2", "enabled": True}])  # fmt: skip
        *old, newest = sorted(versions, key=lambda version: version["created"])
        if not self.az.dry:
            self._old_enough(datetime.datetime.fromisoformat(newest["created"]).timestamp())
        if self.setting == "ENCRYPTION_KEY":
            setting = f"{self.setting}__{self.options.label.upper().replace('-', '_')}"
            self.az("functionapp", "config", "appsettings", "delete", "--resource-group", self.place.group, "--name", self.place.handlers, "--setting-names", setting, "--query", "length(@)")
        for version in old:
            if version["enabled"]:
                self.az("keyvault", "secret", "set-attributes", "--id", version["id"], "--enabled", "false", "--query", "id")

    def _old_enough(self, created: float) -> None:
        hours = (now().timestamp() - created) / 3600
        if hours < self.options.after_hours and not self.az.dry:
            raise Failed(f"The new one is {hours:.1f} h old; the old one stays for {self.options.after_hours:g} h (--after-hours), so that whoever still uses it is seen.")


def main(description: str) -> int:
    from .commands import parser

    made = parser(description)
    made.add_argument("secret", help="what follows the project in the secret's name, such as stripe-webhook")
    made.add_argument("--file", default="", help="the new value, in a file; else one is generated")
    made.add_argument("--label", default="", help="of the new one where both hold, of the old encryption key (default: today, such as 20261127); with --finish the same as then")
    made.add_argument("--finish", action="store_true", help="take the old one away")
    made.add_argument("--old", default="", metavar="LABEL", help="with --finish: the label of the old one, if it had one")
    made.add_argument("--resealed", action="store_true", help="with --finish, of the encryption key: the job reseal-secrets has succeeded")
    made.add_argument("--files", default="", metavar="FOLDER", help="where the file with what was generated goes (default: .local/{environment})")
    made.add_argument("--after-hours", type=float, default=24, help="how long old and new hold at least (default: %(default)s)")
    made.add_argument("--secret-days", type=float, default=90, help="days that the new one lives (default: %(default)s)")
    watching.add_smoke_arguments(made)
    watching.add_arguments(made)
    options = made.parse_args()
    if options.finish and not options.label and not options.dry_run:
        made.error("--finish needs --label: the one that the rotation was begun with (scripts/deploy ENVIRONMENT --status shows the log)")
    options.label = options.label or now().strftime("%Y%m%d")
    rotation = Rotation(options)
    rotation.finish() if options.finish else rotation.begin()
    return 0
