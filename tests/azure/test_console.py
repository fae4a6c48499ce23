"""The console on Static Web Apps, as a release puts it there. Run by `scripts/deploy-test`."""

import shutil
import unittest

from deployment import console
from world import ROOT, World

ISSUER = {"sign_in": {"issuer": "https://login.example.com/tenant/v2.0", "client_id": "spa"}}


class Console(World):
    def served(self, name: str = "index.html") -> str:
        return (self.home / "served" / name).read_text()

    def uploads(self) -> list[str]:
        return (self.home / "npx-calls").read_text().splitlines()

    def test_the_page_is_told_its_server_and_the_policy_lets_it_call_that_and_where_people_sign_in(self) -> None:
        self.change(sign_in=[200, ISSUER])
        self.deployed("one")
        self.assertIn(f'<meta name="colloquy-server" content="{self.url}" />', self.served())
        self.assertIn(f"connect-src 'self' {self.url} https://login.example.com; base-uri", self.served("staticwebapp.config.json"))
        self.assertRegex(self.uploads()[0], r"^--yes @azure/static-web-apps-cli@[\d.]+ deploy \. --env production with-token$")
        self.assertEqual("console-prod-one.zip", self.kept()["console"])

    def test_a_server_with_keys_alone_lets_the_page_call_nobody_else(self) -> None:
        for told in ([200, {"sign_in": None}], [404, {}]):
            with self.subTest(told):
                self.change(sign_in=told)
                self.deployed(f"s{told[0]}")
                self.assertIn(f"connect-src 'self' {self.url}; base-uri", self.served("staticwebapp.config.json"))

    def test_it_comes_last_and_not_with_a_release_that_goes_back(self) -> None:
        self.deployed("one")
        self.change(metrics={"server-prod-two.zip": {"Requests": 200, "Http5xx": 50}})
        self.assertEqual(1, self.deploy("two").returncode)
        self.assertIn("<title>one</title>", self.served())
        self.assertEqual(1, len(self.uploads()))

    def test_a_rollback_by_hand_takes_it_back_from_the_kept_package(self) -> None:
        self.deployed("one")
        self.deployed("two")
        self.assertIn("<title>two</title>", self.served())
        done = self.rollback()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("<title>one</title>", self.served())
        self.assertEqual("console-prod-one.zip", self.kept()["console"])

    def test_one_that_was_not_uploaded_is_told_and_comes_with_the_next_run_alone(self) -> None:
        self.deployed("one")
        for trouble, why in (("upload-fails", "no way to the service; token …"), ("upload-does-nothing", "not the page that was uploaded")):
            with self.subTest(trouble):
                (self.home / trouble).touch()
                done = self.deploy(trouble)
                self.assertEqual(1, done.returncode)
                self.assertIn("The release runs, and its console is the one of before", done.stderr)
                self.assertIn(why, done.stderr)
                self.assertNotIn("the console's token", done.stderr + done.stdout)
                self.assert_runs(trouble)
                (self.home / trouble).unlink()
                published = len([call for call in self.calls() if "config-zip" in call])
                done = self.deploy(trouble)
                self.assertEqual(0, done.returncode, done.stderr)
                self.assertIn(f"<title>{trouble}</title>", self.served())
                self.assertEqual(published, len([call for call in self.calls() if "config-zip" in call]))

    def test_what_a_server_says_of_sign_in_cannot_widen_the_policy(self) -> None:
        self.change(sign_in=[200, {"sign_in": {"issuer": "https://x; script-src *"}}])
        done = self.deploy("one")
        self.assertEqual(1, done.returncode)
        self.assertIn("is no address that the console may call", done.stderr)
        self.assertFalse((self.home / "served").exists())

    def test_the_page_that_is_built_and_its_policy_have_the_places_that_are_written_to(self) -> None:
        for name in (console.PAGE, console.CONFIGURATION):
            shutil.copy(ROOT / "web" / name, self.home)
        page = console.tell(self.home, "https://chat.example.com/", "https://login.example.com/tenant/v2.0")
        self.assertIn('<meta name="colloquy-server" content="https://chat.example.com" />', page)
        self.assertIn("connect-src 'self' https://chat.example.com https://login.example.com;", (self.home / console.CONFIGURATION).read_text())

    def test_a_dry_run_shows_the_upload_and_makes_none(self) -> None:
        done = self.deploy("one", "--dry-run")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("az staticwebapp secrets list", done.stdout)
        self.assertRegex(done.stdout, r"npx --yes @azure/static-web-apps-cli@[\d.]+ deploy \. --env production")
        self.assertFalse((self.home / "npx-calls").exists())


class WithoutOne(World):
    environment = "staging"

    def test_staging_has_none_of_its_own(self) -> None:
        self.deployed("one")
        self.assertFalse((self.home / "npx-calls").exists())
        self.assertNotIn("console", self.kept())


if __name__ == "__main__":
    unittest.main()
