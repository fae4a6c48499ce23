"""scripts/bootstrap and rotate against the stand-in for az. Run by `scripts/deploy-test`."""

import base64
import json
import re
import subprocess
import time
import unittest

from world import ROOT, World

# What the parameter files read of the environment and have no default for.
SET = {
    "COLLOQUY_OWNER": "me", "COLLOQUY_MAIL_ADDRESSES": "me@example.com", "COLLOQUY_CONSUMER_URL": "https://example.com", "COLLOQUY_DATABASE_ADMINISTRATOR_ID": "g",
    "COLLOQUY_DATABASE_ADMINISTRATOR_NAME": "admins", "COLLOQUY_CORS_ORIGINS": "https://example.com",
}  # fmt: skip
QUICK = ["--smoke-minutes", "0.01", "--smoke-interval", "0.05", "--retry-wait", "0.01", "--tries", "2"]


class Bootstrap(World):
    environment = "staging"

    def bootstrap(self, *arguments: str, **environment: str):
        return self.run_script("bootstrap", "--files", str(self.home / "files"), "--retry-wait", "0.01", "--tries", "2", *arguments, **(SET | environment))

    def test_it_makes_everything_and_a_second_time_changes_nothing(self) -> None:
        parts = [part for name in ("providers", "identity", "infrastructure", "roles", "secrets") for part in ("--only", name)]
        done = self.bootstrap(*parts, "--yes", "--github", "owner/repository")
        self.assertEqual(0, done.returncode, done.stderr)
        first = self.state
        self.assertEqual(1, first["infrastructure"])
        self.assertIn("Microsoft.App", first["providers"])
        self.assertIn("identity federated-credential create --name github --identity-name colloquy-staging-deploy", "\n".join(self.calls()))
        self.assertIn("repo:owner/repository:environment:staging ", "\n".join(self.calls()))
        done = self.bootstrap(*parts, "--yes", "--github", "owner/repository")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({**first, "infrastructure": 2}, self.state)

    def test_what_was_just_made_is_waited_for_and_what_was_deleted_is_named(self) -> None:
        self.fail("role assignment create .*what-if", "ERROR: Role 'colloquy what-if' doesn't exist.")
        self.fail("role assignment create", "ERROR: (PrincipalNotFound) Principal does not exist in the directory")
        done = self.bootstrap("--only", "identity")
        self.assertEqual(0, done.returncode, done.stderr)
        self.fail("--method put .*stripe-webhook", "ERROR: Conflict ObjectIsDeletedButRecoverable")
        done = self.bootstrap("--only", "secrets")
        self.assertEqual(1, done.returncode)
        self.assertIn("az keyvault secret recover", done.stderr)

    def test_the_identity_of_infrastructure_gives_the_templates_roles_and_no_other(self) -> None:
        self.assertEqual(0, self.bootstrap("--only", "identity").returncode)
        given = {found for file in (ROOT / "bicep").rglob("*.bicep") for found in re.findall(r"'([0-9a-f]{8}-[0-9a-f-]{27})'", file.read_text())}
        conditions = [condition for condition in self.state["assignments"].values() if condition]
        self.assertEqual(1, len(conditions))
        self.assertEqual(given, set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", conditions[0])))
        self.assertNotIn("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", conditions[0], "Owner")

    def test_every_secret_of_the_parameter_file_is_put_and_no_value_is_in_a_call_or_a_message(self) -> None:
        done = self.bootstrap("--only", "secrets")
        self.assertEqual(0, done.returncode, done.stderr)
        kept = self.state["secrets"]
        text = (ROOT / "bicep" / "staging.bicepparam").read_text()
        named = set(re.findall(r"^  [A-Z_]+: '([\w-]+)'$", text, re.M))
        self.assertEqual({f"colloquy-{name}" for name in named}, set(kept))
        told = "\n".join(self.calls()) + done.stdout + done.stderr
        for name, secret in kept.items():
            self.assertNotIn(secret["value"], told, name)
            self.assertAlmostEqual(time.time() + 90 * 86400, secret["exp"], delta=600)
        self.assertRegex(kept["colloquy-stripe-webhook"]["value"], "^whsec_")
        [key] = json.loads(kept["colloquy-auth-api-keys"]["value"])
        self.assertEqual(["operator"], key["scopes"])
        self.assertEqual(0o600, (self.home / "files" / "operator-key").stat().st_mode & 0o777)
        self.assertIn("refresh", "\n".join(self.calls()))

    def test_a_secret_of_ones_own_comes_from_a_file_and_a_strange_one_is_refused(self) -> None:
        file = self.home / "stripe"
        file.write_text("whsec_theirs\n")
        self.assertEqual(0, self.bootstrap("--only", "secrets", "--secret", f"stripe-webhook={file}").returncode)
        self.assertEqual("whsec_theirs", self.state["secrets"]["colloquy-stripe-webhook"]["value"])
        done = self.bootstrap("--only", "secrets", "--secret", f"stripe={file}")
        self.assertEqual(1, done.returncode)
        self.assertIn("names no such secret", done.stderr)
        self.assertEqual(2, self.bootstrap("--secret", "stripe-webhook").returncode)

    def test_what_is_not_set_is_named_before_anything_is_deployed(self) -> None:
        done = self.bootstrap("--only", "infrastructure", "--yes", COLLOQUY_OWNER="")
        self.assertEqual(1, done.returncode)
        self.assertIn("COLLOQUY_OWNER", done.stderr)
        self.assertEqual(0, self.state["infrastructure"])

    def test_a_private_database_gets_its_roles_from_a_machine_in_its_network_which_goes_again(self) -> None:
        self.change(outputs=self.state["outputs"] | {"DATABASE_HOST": "database.invalid"})
        # The first run is cut when its machine is there.
        self.fail("vm run-command", kill=True)
        self.assertEqual(-9, self.bootstrap("--only", "database").returncode)
        self.assertEqual(["colloquy-staging-bootstrap"], self.state["machines"])
        done = self.bootstrap("--only", "database")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual([], self.state["machines"])
        ran = self.state["ran"]
        self.assertEqual(0, subprocess.run(["bash", "-n"], input=ran, text=True, check=False).returncode)
        sent = [base64.b64decode(text).decode() for text in re.findall(r"<<<(\S+) \| psql .* --host database\.invalid --username admins ", ran)]
        self.assertEqual(2, len(sent))
        self.assertIn("pgaadauth_create_principal('colloquy-staging-server', false, false)", sent[0])
        self.assertIn("alter role \"colloquy-staging-deploy\" set role to 'colloquy'", sent[1])
        self.assertIn("PGPASSWORD='a token'", ran)
        self.assertNotIn("a token", "\n".join(self.calls()) + done.stderr)
        [made] = [call for call in self.calls()[-6:] if "vm create" in call]
        self.assertIn("--vnet-name colloquy-staging-vnet --subnet management --public-ip-address  --nsg  ", made)

    def test_a_machine_that_could_not_give_them_is_told_and_goes_too(self) -> None:
        self.change(outputs=self.state["outputs"] | {"DATABASE_HOST": "database.invalid"}, machine_says="psql: error: role \"admins\" with a token is not permitted")
        done = self.bootstrap("--only", "database")
        self.assertEqual(1, done.returncode)
        self.assertIn("is not permitted", done.stderr)
        self.assertNotIn("a token", done.stderr)
        self.assertEqual([], self.state["machines"])
        self.fail("vm create", "ERROR: (SkuNotAvailable) The requested size is not available", times=9)
        done = self.bootstrap("--only", "database")
        self.assertEqual(1, done.returncode)
        self.assertIn("SkuNotAvailable", done.stderr)

    def test_without_one_a_private_database_leaves_its_sql_and_says_where_to_run_it(self) -> None:
        self.change(outputs=self.state["outputs"] | {"DATABASE_HOST": "database.invalid"})
        done = self.bootstrap("--only", "database", "--database-machine", "")
        self.assertEqual(1, done.returncode)
        self.assertIn("management subnet", done.stderr)
        text = (self.home / "files" / "roles.sql").read_text()
        self.assertIn("pgaadauth_create_principal('colloquy-staging-server', false, false)", text)
        self.assertIn("alter role \"colloquy-staging-deploy\" set role to 'colloquy'", text)
        self.assertIn('grant select on tables to "colloquy-staging-export"', text)
        self.assertNotIn("alter role \"colloquy-staging-export\"", text, "it reads, and owns nothing")

    def test_a_dry_run_makes_no_call_and_leaves_no_file(self) -> None:
        done = self.bootstrap("--dry-run", "--github", "owner/repository")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual([], self.calls())
        self.assertFalse((self.home / "files").exists())
        for words in ("az deployment sub create", "az role assignment create", "az rest --method put", "az vm create", "az vm run-command invoke", "az vm delete", "create role colloquy nologin"):
            self.assertIn(words, done.stdout)

    def test_an_environment_that_is_not_is_told(self) -> None:
        type(self).environment, kept = "production", type(self).environment
        try:
            done = self.bootstrap("--dry-run")
        finally:
            type(self).environment = kept
        self.assertEqual(1, done.returncode)
        self.assertIn("There are: dev, prod, staging", done.stderr)


class BootstrapProd(World):
    def test_the_deploy_identity_may_put_pages_on_static_web_apps_and_nothing_else_there(self) -> None:
        done = self.run_script("bootstrap", "--retry-wait", "0.01", "--tries", "2", "--only", "roles", **SET)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(["colloquy console"], self.state["definitions"])
        self.assertIn("principal-colloquy-prod-deploy colloquy console /subscriptions/sub-1/resourceGroups/rg-colloquy-prod", self.state["assignments"])
        made = next(call for call in self.calls() if "role definition create" in call)
        self.assertIn('["Microsoft.Web/staticSites/read", "Microsoft.Web/staticSites/listSecrets/action"]', made)


class Rotate(World):
    environment = "staging"

    def setUp(self) -> None:
        super().setUp()
        self.change(production="server-staging-one.zip", handlers="handlers-staging-one.zip")

    def rotate(self, *arguments: str):
        return self.run_script("rotate", *arguments, "--files", str(self.home / "files"), *QUICK)

    def test_a_source_gets_a_second_secret_and_loses_the_first_a_day_later(self) -> None:
        file = self.home / "new"
        file.write_text("whsec_new\n")
        done = self.rotate("stripe-webhook", "--file", str(file), "--label", "b")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual("whsec_new", self.state["secrets"]["colloquy-stripe-webhook-b"]["value"])
        self.assertEqual("@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/colloquy-stripe-webhook-b/)", self.state["settings"]["WEBHOOK_SECRET_STRIPE__B"])
        self.assertIn("WEBHOOK_SECRET_STRIPE__B: 'stripe-webhook-b'", done.stderr)
        self.assertNotIn("whsec_new", "\n".join(self.calls()) + done.stderr)
        secrets = self.state["secrets"]
        secrets["colloquy-stripe-webhook"] = {"value": "old", "enabled": True, "created": 0, "version": 1}
        secrets["colloquy-stripe-webhook-b"]["created"] = time.time() - 3600
        self.change(secrets=secrets, settings=self.state["settings"] | {"WEBHOOK_SECRET_STRIPE": "…"})
        done = self.rotate("stripe-webhook", "--finish", "--label", "b")
        self.assertEqual(1, done.returncode)
        self.assertIn("The new one is 1.0 h old", done.stderr)
        self.assertIn("WEBHOOK_SECRET_STRIPE", self.state["settings"])
        secrets["colloquy-stripe-webhook-b"]["created"] = time.time() - 25 * 3600
        self.change(secrets=secrets)
        done = self.rotate("stripe-webhook", "--finish", "--label", "b")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({"WEBHOOK_SECRET_STRIPE__B"}, set(self.state["settings"]))
        self.assertFalse(self.state["secrets"]["colloquy-stripe-webhook"]["enabled"])
        self.assertEqual(["begun", "finished"], sorted(entry["result"] for entry in self.log()))

    def test_the_old_encryption_key_still_opens_until_all_is_sealed_anew(self) -> None:
        self.change(secrets={"colloquy-encryption-key": {"value": "old", "enabled": True, "created": 0, "version": 1, "exp": 0}})
        done = self.rotate("encryption-key", "--label", "old")
        self.assertEqual(0, done.returncode, done.stderr)
        # By its version: the address without one is the new key's.
        self.assertEqual("@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/colloquy-encryption-key/1)", self.state["settings"]["ENCRYPTION_KEY__OLD"])
        self.assertEqual(2, self.state["secrets"]["colloquy-encryption-key"]["version"])
        order = [call.split("?")[0] for call in self.calls() if "appsettings set" in call or "--method put" in call]
        self.assertIn("appsettings set", order[0], "the old key is kept before the new one is there")
        done = self.rotate("encryption-key", "--finish", "--label", "old")
        self.assertEqual(1, done.returncode)
        self.assertIn("backfill reseal-secrets", done.stderr)
        self.assertIn("ENCRYPTION_KEY__OLD", self.state["settings"])

    def test_all_else_gets_a_new_version_and_the_old_one_is_disabled(self) -> None:
        done = self.rotate("auth-api-keys")
        self.assertEqual(1, done.returncode)
        self.assertIn("--file", done.stderr)
        file = self.home / "keys"
        file.write_text("[]")
        self.assertEqual(0, self.rotate("auth-api-keys", "--file", str(file)).returncode)
        self.change(versions=[{"id": "v2", "created": "2026-01-02T00:00:00+00:00", "enabled": True}, {"id": "v1", "created": "2026-01-01T00:00:00+00:00", "enabled": True}])
        done = self.rotate("auth-api-keys", "--finish", "--label", "x")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({"v1": False, "v2": True}, {version["id"]: version["enabled"] for version in self.state["versions"]})

    def test_an_app_that_does_not_take_it_is_told(self) -> None:
        self.change(unhealthy=["handlers"])
        file = self.home / "keys"
        file.write_text("[]")
        done = self.rotate("auth-api-keys", "--file", str(file))
        self.assertEqual(1, done.returncode)
        self.assertIn("answered 503", done.stderr)

    def test_a_secret_that_is_not_is_told(self) -> None:
        done = self.rotate("stripe")
        self.assertEqual(1, done.returncode)
        self.assertIn("stripe-webhook", done.stderr)


if __name__ == "__main__":
    unittest.main()
