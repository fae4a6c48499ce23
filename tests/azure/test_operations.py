"""scripts/operate, export, restore and emergency-deny against the stand-in for az. Run by `scripts/deploy-test`."""

import os
import time
import unittest
import zipfile

import stand_in
from world import HERE, World


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
