"""scripts/bootstrap, rotate, operate, export, restore and emergency-deny against the stand-in for az. Run by `scripts/deploy-test`."""

import base64
import json
import os
import re
import subprocess
import time
import unittest
import zipfile

import stand_in
from world import HERE, ROOT, World

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


class Operate(World):
    def test_a_command_runs_with_the_environments_settings_and_the_vaults_secrets(self) -> None:
        self.change(
            secrets={"colloquy-encryption-key": {"value": "sealed-by-this"}},
            settings={
                "DATABASE_DIRECT_URL": "postgres://colloquy-prod-handlers@db.example.com:5432/colloquy", "AZURE_CLIENT_ID": "the app's", "APP_ENV": "production",
                "ENCRYPTION_KEY": "@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/colloquy-encryption-key/)", "WEBSITE_X": "1",
            },
        )  # fmt: skip
        package = self.home / "handlers-prod-one.zip"
        self.packages("one")
        with zipfile.ZipFile(package, "a") as zipped:
            self.assertIn("function-handlers", zipped.namelist())
        self.program(package, "#!/bin/sh\nprintf '%s|' \"$*\" \"$DATABASE_DIRECT_URL\" \"$ENCRYPTION_KEY\" \"$AZURE_CREDENTIAL\" \"$AZURE_CLIENT_ID\" \"$WEBSITE_X\" \"$APP_ENV\"\nexit 3\n")
        done = self.run_script("operate", "--package", str(package), "--database-role", "me", "function-handlers", "migrate", "--check")
        self.assertEqual(3, done.returncode, done.stderr)
        self.assertEqual("migrate --check|postgres://me@db.example.com:5432/colloquy|sealed-by-this|developer|||production|", done.stdout)
        self.assertNotIn("sealed-by-this", "\n".join(self.calls()) + done.stderr)

    @staticmethod
    def program(package, text: str) -> None:
        with zipfile.ZipFile(package) as zipped:
            rest = {name: zipped.read(name) for name in zipped.namelist() if name != "function-handlers"}
        with zipfile.ZipFile(package, "w") as zipped:
            for name, content in rest.items():
                zipped.writestr(name, content)
            entry = zipfile.ZipInfo("function-handlers")
            entry.external_attr = 0o100755 << 16
            zipped.writestr(entry, text)

    def test_what_is_no_command_of_ours_is_refused(self) -> None:
        self.assertEqual(2, self.run_script("operate", "psql").returncode)


class Export(World):
    """With stand-ins for pg_dump and pg_restore; scripts/drill restore uses the real server."""

    def export(self, *arguments: str, dump: str = "echo rows > \"$last\"", listed: str = "TABLE DATA public events"):
        tools = self.home / "tools"
        tools.mkdir(exist_ok=True)
        for name, text in (("pg_dump", f"for last; do :; done\necho \"$* $PGPASSWORD\" >> \"$HOME/dumped\"\n{dump}\n"), ("pg_restore", f"echo '{listed}'\n")):
            (tools / name).write_text("#!/bin/sh\n" + text)
            (tools / name).chmod(0o755)
        self.change(outputs=self.state["outputs"] | {"EXPORTS_URI": "https://bkcolloquyprod.blob.core.windows.net/exports", "DATABASE_HOST": "db.example.com"})
        return self.run_script("export", "--retry-wait", "0.01", *arguments, PATH=f"{HERE}:{tools}:/usr/bin:/bin")

    def exports(self) -> dict[str, str]:
        return {path.name: stand_in.state_of_tags[path.name] for path in (self.home / "blobs").iterdir() if path.name.endswith(".dump")}

    def test_it_is_written_once_a_day_and_says_how_long_it_stays(self) -> None:
        done = self.export()
        self.assertEqual(0, done.returncode, done.stderr)
        [(name, tags)] = self.exports().items()
        first = time.gmtime().tm_mday == 1
        self.assertEqual("" if first else "keep=short", tags)
        self.assertIn("--username colloquy-prod-export --dbname colloquy", (self.home / "dumped").read_text())
        self.assertNotIn("a token", "\n".join(self.calls()) + done.stderr)
        done = self.export()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("is there already", done.stderr)
        self.assertEqual(1, len(self.exports()))
        self.assertEqual([], [call for call in self.calls() if "--container-name releases" in call], "its identity has no right to releases")

    def test_one_that_is_to_stay_has_no_tag(self) -> None:
        self.assertEqual(0, self.export("--keep-long").returncode)
        self.assertEqual([""], list(self.exports().values()))

    def test_a_dump_that_fails_or_is_empty_is_not_kept(self) -> None:
        for more, why in (({"dump": "echo 'no route' >&2; exit 1"}, "no route"), ({"listed": "SCHEMA public"}, "no table with rows")):
            with self.subTest(why):
                done = self.export(**more)
                self.assertEqual(1, done.returncode)
                self.assertIn(why, done.stderr)
                self.assertEqual({}, self.exports())


class Restore(World):
    def restore(self, *arguments: str, rows: int = 5):
        tools = self.home / "tools"
        tools.mkdir(exist_ok=True)
        # The restored one has `rows`, the one that runs has five.
        (tools / "psql").write_text(f"""#!/bin/sh
read -r text
case "$text" in select\\ string_agg*) cat >/dev/null; echo "select 'events', count(*) from events" ;;
*) case "$*" in *-restored*) echo "events|{rows}" ;; *) echo "events|5" ;; esac ;; esac
""")
        (tools / "psql").chmod(0o755)
        self.change(outputs=self.state["outputs"] | {"DATABASE_HOST": "psql-1.example.com"})
        return self.run_script("restore", "--retry-wait", "0.01", *arguments, PATH=f"{HERE}:{tools}:{os.environ['PATH']}")

    def test_it_stands_beside_in_the_same_network_with_rows_counted_and_goes_again(self) -> None:
        done = self.restore("--at", "2026-02-03T04:05:06Z", "--equal")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual({"psql-1": "", "psql-1-restored": "2026-02-03T04:05:06Z"}, self.state["servers"])
        self.assertIn("--subnet subnet-1 --private-dns-zone zone-1", "\n".join(self.calls()))
        self.assertRegex(done.stdout, r"events +5 restored +5 now\n")
        self.assertIn("of the 3600 s allowed (RTO): held", done.stderr)
        done = self.restore("--at", "2026-02-03T04:05:06Z")
        self.assertIn("is there already", done.stderr)
        self.assertEqual(1, len([call for call in self.calls() if "flexible-server restore" in call]))
        self.assertEqual(0, self.restore("--drop").returncode)
        self.assertEqual({"psql-1": ""}, self.state["servers"])

    def test_missing_rows_are_told(self) -> None:
        done = self.restore("--equal", rows=4)
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stdout, r"events +4 restored +5 now   differs")
        self.assertEqual(["events"], self.log()[0]["differing"])

    def test_what_runs_is_never_dropped_nor_restored_over(self) -> None:
        for arguments in (["--name", "psql-1"], ["--drop", "--name", "psql-1"], ["--drop", "--name", "psql-other"]):
            with self.subTest(arguments):
                self.assertEqual(1, self.restore(*arguments).returncode)
                self.assertEqual({"psql-1": ""}, self.state["servers"])

    def test_a_moment_that_no_backup_has_is_told(self) -> None:
        for moment, why in (("2025-12-31T00:00:00Z", "no backup from before"), ("2999-01-01T00:00:00Z", "in the future"), ("yesterday", "a moment in UTC")):
            with self.subTest(moment):
                done = self.restore("--at", moment)
                self.assertEqual(1, done.returncode)
                self.assertIn(why, done.stderr)


class Deny(World):
    def deny(self, *arguments: str):
        return self.run_script("emergency-deny", "--retry-wait", "0.01", *arguments)

    def front_door(self) -> None:
        self.change(outputs=self.state["outputs"] | {"EDGE_URL": "https://edge.example.com"})

    def denied(self) -> list[str]:
        rules = self.state["firewall"]["properties"]["customRules"]["rules"]
        return [address for rule in rules if rule["name"] == "EmergencyDeny" for address in rule["matchConditions"][0]["matchValue"]]

    def test_addresses_are_added_to_the_firewall_and_its_other_rules_stay(self) -> None:
        self.front_door()
        self.assertEqual(0, self.deny("--address", "198.51.100.7", "--reason", "floods").returncode)
        self.assertEqual(0, self.deny("--address", "203.0.113.0/24", "--reason", "floods").returncode)
        self.assertEqual(["198.51.100.7/32", "203.0.113.0/24"], self.denied())
        self.assertIn("RatePerAddress", [rule["name"] for rule in self.state["firewall"]["properties"]["customRules"]["rules"]])
        puts = len([call for call in self.calls() if "--method put" in call])
        self.assertEqual(0, self.deny("--address", "203.0.113.0/24", "--reason", "again").returncode)
        self.assertEqual(puts, len([call for call in self.calls() if "--method put" in call]), "nothing changed, so nothing is put")
        self.assertEqual(0, self.deny("--lift", "--address", "198.51.100.7").returncode)
        self.assertEqual(["203.0.113.0/24"], self.denied())
        self.assertEqual(0, self.deny("--lift").returncode)
        self.assertEqual([], self.denied())

    def test_everybody_by_the_routes(self) -> None:
        self.front_door()
        self.assertEqual(0, self.deny("--everybody", "--route", "server", "--reason", "leaks").returncode)
        self.assertEqual({"server": "Disabled"}, self.state["routes"])
        self.assertEqual(0, self.deny("--lift").returncode)
        self.assertEqual({"server": "Enabled", "webhooks": "Enabled"}, self.state["routes"])

    def test_without_front_door_by_the_apps(self) -> None:
        self.assertEqual(0, self.deny("--address", "198.51.100.7", "--reason", "floods").returncode)
        self.assertEqual(0, self.deny("--everybody", "--route", "webhooks", "--reason", "floods").returncode)
        rules = self.state["restrictions"]
        self.assertEqual({"198.51.100.7/32", "0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"}, {rule["ip_address"] for rule in rules["handlers-1"]})
        self.assertEqual(["198.51.100.7/32"], [rule["ip_address"] for rule in rules["server-1"]])
        self.assertEqual(0, self.deny("--lift").returncode)
        self.assertEqual({"handlers-1": [], "server-1": []}, self.state["restrictions"])
        self.assertEqual(["denied", "denied", "lifted"], sorted(entry["result"] for entry in self.log()))

    def test_nonsense_is_refused(self) -> None:
        self.assertEqual(2, self.deny("--address", "1.2.3.4").returncode, "no reason")
        self.assertEqual(2, self.deny("--reason", "x").returncode, "nobody named")
        done = self.deny("--address", "1.2.3.4.5", "--reason", "x")
        self.assertEqual(1, done.returncode)
        self.assertEqual([], self.calls())


if __name__ == "__main__":
    unittest.main()
