"""scripts/deploy, swap, rollback and smoke-test against the stand-in for az. Run by `scripts/deploy-test`."""

import unittest
import zipfile

from world import FAST, World

THROTTLED = "ERROR: (429) TooManyRequests: the request is being throttled"
CONFLICT = "ERROR: Operation returned an invalid status 'Conflict'. Another deployment in progress."
# A call's place in the order, by what it does.
ORDER = {
    "functions": "functionapp deployment source config-zip", "migrate": "hostruntime/admin/functions/migrate", "slot": "webapp deploy --",
    "swap": "webapp deployment slot swap", "watch": "monitor metrics list",
}  # fmt: skip


class Prod(World):
    """With a slot."""

    def test_the_order_is_functions_migrate_slot_smoke_swap_watch(self) -> None:
        self.deployed("one")
        self.deployed("two")
        self.assert_runs("two")
        self.assertIn("one", self.state["slot"])
        second = self.calls()[len(self.calls()) // 2 :]
        places = [next(at for at, call in enumerate(second) if words in call) for words in ORDER.values()]
        self.assertEqual(sorted(places), places)
        self.assertEqual("server-prod-two.zip", self.kept()["current"]["server"])
        self.assertEqual("server-prod-one.zip", self.kept()["previous"]["server"])
        self.assertNotIn("deploying", self.kept())
        self.assertEqual(["succeeded", "succeeded"], [entry["result"] for entry in self.log()])
        self.assertEqual({"someone@example.com"}, {entry["who"] for entry in self.log()})
        self.assertEqual(["migrate postgres://colloquy-prod-deploy@127.0.0.1:5432/colloquy_slot"] * 2, (self.home / "migrated").read_text().splitlines())

    def test_what_runs_already_is_not_deployed_again(self) -> None:
        self.deployed("one")
        before = len([call for call in self.calls() if "config-zip" in call])
        done = self.deploy("one")
        self.assertEqual(0, done.returncode)
        self.assertIn("Nothing to do", done.stderr)
        self.assertEqual(before, len([call for call in self.calls() if "config-zip" in call]))

    def test_a_dry_run_prints_the_calls_of_a_real_run_and_makes_none(self) -> None:
        self.deployed("one")
        before = self.calls()
        done = self.deploy("two", "--dry-run")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(before, self.calls())
        self.assert_runs("one")
        self.deployed("two")
        made = [" ".join(call.split()[:4]) for call in self.calls()[len(before) :]]
        shown = [" ".join(line.removeprefix("az ").split()[:4]) for line in done.stdout.splitlines() if line.startswith("az ")]
        # A real watch looks more than once, and the store's listing finds packages that it leaves alone.
        looks = ("monitor metrics list --resource", "rest --method post --url")
        self.assertEqual([call for call in shown if call not in looks and "show" not in call], [call for call in made if call not in looks and "show" not in call])

    def test_throttling_and_conflicts_are_waited_out(self) -> None:
        self.fail("config-zip", THROTTLED, times=2)
        self.fail("slot swap", CONFLICT, times=1)
        self.fail("webapp deploy --", CONFLICT, times=1)
        done = self.deploy("one")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("again in 0.02 s", done.stderr)
        self.assert_runs("one")

    def test_a_swap_that_failed_after_it_happened_is_not_made_again(self) -> None:
        self.deployed("one")
        self.fail("slot swap", "ERROR: the gateway timed out", after=True)
        done = self.deploy("two")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assert_runs("two")
        self.assertEqual(2, self.state["swaps"])

    def test_a_swap_that_azure_refuses_leaves_everything_as_it_was(self) -> None:
        self.deployed("one")
        self.fail("slot swap", "ERROR: the slot did not warm up", times=9)
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assertIn("Azure did not swap", done.stderr)
        self.assert_runs("one")
        self.assertNotIn("deploying", self.kept())

    def test_a_swap_of_which_nothing_is_known_waits_for_the_next_run(self) -> None:
        self.deployed("one")
        self.fail("slot swap", "ERROR: the gateway timed out", after=True)
        self.fail("slotSwapStatus", "ERROR: no answer", times=1, skip=1)
        self.assertEqual(1, self.deploy("two").returncode)
        self.assertEqual("swap", self.kept()["deploying"]["step"])
        done = self.deploy("two")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assert_runs("two")
        self.assertEqual(2, self.state["swaps"])

    def test_functions_that_cannot_be_published_change_nothing_else(self) -> None:
        self.deployed("one")
        self.fail("config-zip.*two", "ERROR: the package is half there", times=9, after=True)
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assert_runs("one")
        self.assertNotIn("deploying", self.kept())
        self.assertEqual(["deploy failed", "rollback succeeded"], sorted(f"{entry['what']} {entry['result']}" for entry in self.log())[:1] + [f"{self.log()[-1]['what']} {self.log()[-1]['result']}"])

    def test_migrations_that_fail_stop_before_the_server(self) -> None:
        self.deployed("one")
        self.change(unhealthy=["handlers-prod-two"])
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assertIn("not ready: database", done.stderr)
        self.assertIn("docs/runbooks/stuck-migration.md", done.stderr)
        self.assert_runs("one")
        self.assertFalse([call for call in self.calls() if "--src-path" in call and "two" in call])

    def test_a_slot_whose_database_cannot_be_migrated_is_not_swapped(self) -> None:
        self.deployed("one")
        (self.home / "cannot-migrate").touch()
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assertIn("management subnet", done.stderr)
        self.assert_runs("one")

    def test_a_slot_that_is_never_healthy_is_not_swapped(self) -> None:
        self.deployed("one")
        self.change(unhealthy=["server-prod-two"])
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assert_runs("one")
        self.assertEqual(1, self.state["swaps"])
        self.assertIn("/slot/health/live answered 503", done.stderr)

    def test_many_errors_after_the_swap_go_back(self) -> None:
        self.deployed("one")
        self.change(metrics={"server-prod-two.zip": {"Requests": 200, "Http5xx": 12}})
        self.went_back(self.deploy("two"), "the server answered 6.0 % of 200 requests with 5xx")

    def test_few_errors_or_few_requests_do_not(self) -> None:
        self.deployed("one")
        self.change(metrics={"server-prod-two.zip": {"Requests": 200, "Http5xx": 10}, "server-prod-three.zip": {"Requests": 19, "Http5xx": 19}})
        self.deployed("two")
        self.deployed("three")

    def test_failing_webhooks_after_the_swap_go_back(self) -> None:
        self.deployed("one")
        self.change(telemetry={"server-prod-two.zip": {"failing": 0, "breakers": 0, "calls": 100, "failed": 50}})
        self.went_back(self.deploy("two"), "the function app answered 50.0 % of 100 requests with 5xx")

    def test_a_server_that_is_well_in_the_slot_and_not_in_production_goes_back(self) -> None:
        self.deployed("one")
        # What it meets in production is another database.
        self.change(unhealthy_in={"production": "two"})
        self.went_back(self.deploy("two"), "/production/health/live answered 503")

    def test_failed_health_checks_during_the_watch_go_back(self) -> None:
        self.deployed("one")
        # Its smoke test is passed; from the first look at metrics on it is ill.
        self.change(ill_after={"match": "monitor metrics list", "who": "two"})
        self.went_back(self.deploy("two", "--watch-minutes", "1"), "the health check failed 3 times in a row")

    def test_what_cannot_be_asked_is_said_and_is_no_reason_to_go_back(self) -> None:
        self.deployed("one")
        self.fail("monitor metrics list", "ERROR: AuthorizationFailed", times=99)
        done = self.deploy("two")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("not seen", done.stderr)

    def test_systems_and_models_that_fail_only_since_the_swap_go_back(self) -> None:
        self.deployed("one")
        for row, why in (({"failing": 7, "breakers": 0}, "7 calls in a row"), ({"failing": 0, "breakers": 1}, "1 model deployments")):
            with self.subTest(why):
                self.change(telemetry={"server-prod-two.zip": row})
                self.went_back(self.deploy("two"), why)

    def test_what_failed_before_the_swap_is_no_reason_to_go_back(self) -> None:
        self.deployed("one")
        self.change(telemetry={"*": {"failing": 7, "breakers": 1}})
        done = self.deploy("two")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("before the swap already", done.stderr)

    def test_the_first_release_has_nothing_to_go_back_to_and_says_so(self) -> None:
        self.change(metrics={"server-prod-one.zip": {"Requests": 200, "Http5xx": 100}})
        done = self.deploy("one")
        self.assertEqual(1, done.returncode)
        self.assertIn("no release before", done.stderr)

    def test_an_unresolved_reference_stops_it_before_anything_changes(self) -> None:
        self.change(references={"ENCRYPTION_KEY": "SecretNotFound"})
        done = self.deploy("one")
        self.assertEqual(1, done.returncode)
        self.assertIn("ENCRYPTION_KEY is not resolved (SecretNotFound)", done.stderr)
        self.assertFalse([call for call in self.calls() if "config-zip" in call])

    def test_two_at_once_is_refused_and_a_dead_one_taken_over(self) -> None:
        self.deployed("one")
        self.fail("webapp deploy --", kill=True)
        self.assertEqual(-9, self.deploy("two").returncode)
        done = self.deploy("three")
        self.assertEqual(1, done.returncode)
        self.assertIn("server-prod-two.zip is being deployed by someone@example.com", done.stderr)
        self.assertEqual(0, self.deploy("three", "--take-over").returncode)
        self.assert_runs("three")

    def test_another_release_does_not_begin_while_one_is_swapped(self) -> None:
        self.deployed("one")
        self.fail("slot swap", kill=True, after=True)
        self.assertEqual(-9, self.deploy("two").returncode)
        done = self.deploy("three", "--take-over")
        self.assertEqual(1, done.returncode)
        self.assertIn("has to end first", done.stderr)
        self.assertEqual(0, self.rollback().returncode)
        self.assert_runs("one")

    def test_whoever_read_an_older_state_is_refused(self) -> None:
        self.deployed("one")
        self.fail("upload --name prod/state.json", "ERROR: not met\nErrorCode:ConditionNotMet")
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assertIn("Somebody else is deploying to prod", done.stderr)
        self.assert_runs("one")

    def test_whoever_meets_another_run_midway_leaves_everything_as_it_is(self) -> None:
        self.deployed("one")
        # After the function package was published.
        self.fail("upload --name prod/state.json", "ERROR: not met\nErrorCode:ConditionNotMet", skip=2)
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assertIn("Somebody else is deploying to prod", done.stderr)
        self.assertEqual("handlers-prod-two.zip", self.state["handlers"])
        self.assertEqual(["deploy"], [entry["what"] for entry in self.log()])
        self.assertIn("deploying", self.kept())

    def test_rollback_by_hand_swaps_and_publishes_the_kept_functions(self) -> None:
        self.deployed("one")
        self.deployed("two")
        done = self.rollback("--reason", "answers are wrong")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assert_runs("one")
        self.assertEqual(3, self.state["swaps"])
        self.assertEqual("answers are wrong", self.log()[-1]["reason"])
        self.assertEqual(1, self.rollback().returncode)

    def test_rollback_when_the_slot_no_longer_holds_it_uses_the_package(self) -> None:
        self.deployed("one")
        self.deployed("two")
        self.fail("webapp deploy --", kill=True, after=True)
        self.assertEqual(-9, self.deploy("three").returncode)
        # It never reached production; its functions go, and the slot has what it has.
        self.assertEqual(0, self.rollback().returncode)
        self.assert_runs("two")
        done = self.rollback()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assert_runs("one")

    def test_old_packages_go_and_those_in_use_stay(self) -> None:
        for name in ("one", "two", "three", "four"):
            self.assertEqual(0, self.deploy(name, "--keep", "1").returncode)
        kept = sorted(path.name for path in (self.home / "blobs").iterdir() if path.name.endswith(".zip"))
        self.assertEqual([f"prod⁄{kind}-prod-{name}.zip" for kind in ("handlers", "server") for name in ("four", "three")], kept)

    def test_packages_that_cannot_run_change_nothing(self) -> None:
        packages = self.packages("one")
        for spoil, why in ((lambda package: package.writestr("host.json", "{}"), "lacks"), (self.without_bit, "not executable")):
            with zipfile.ZipFile(packages[1], "w") as package:
                spoil(package)
            done = self.run_script("deploy", *packages, "--slot-url", self.url)
            self.assertEqual(1, done.returncode)
            self.assertIn(why, done.stderr)
        self.assertEqual([], self.calls())

    @staticmethod
    def without_bit(package: zipfile.ZipFile) -> None:
        for name in ("host.json", "colloquy.toml", "function-handlers", "migrate/function.json", "receive-webhook/function.json"):
            package.writestr(zipfile.ZipInfo(name), "")

    def test_what_was_built_for_another_environment_or_commit_is_refused(self) -> None:
        done = self.deploy("one", "--commit", "abc1234")
        self.assertIn("is not named for prod and commit abc1234", done.stderr)

    def test_smoke_test_opens_a_websocket_and_asks_the_model_when_told_to(self) -> None:
        self.deployed("one")
        arguments = ["--slot-url", f"{self.url}/slot", "--model", "small", "--smoke-minutes", "0.01"]
        self.assertEqual(0, self.run_script("smoke-test", *arguments, COLLOQUY_API_KEY="clq_x").returncode)
        self.change(websockets=False)
        done = self.run_script("smoke-test", *arguments, COLLOQUY_API_KEY="clq_x")
        self.assertIn("WebSocket's handshake with 400", done.stderr)
        self.change(broken=True, websockets=True)
        done = self.run_script("smoke-test", *arguments, COLLOQUY_API_KEY="clq_x")
        self.assertEqual(1, done.returncode)
        self.assertIn("not answering: main", done.stderr)

    def test_swap_by_hand_is_known_to_the_next_rollback(self) -> None:
        self.deployed("one")
        self.deployed("two")
        done = self.run_script("swap", "--slot-url", f"{self.url}/slot", "--reason", "look", "--smoke-minutes", "0.01")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(("server-prod-one.zip", "server-prod-two.zip"), (self.kept()["current"]["server"], self.kept()["slot"]["server"]))

    def test_status_changes_nothing(self) -> None:
        self.deployed("one")
        done = self.run_script("deploy", "--status", "--slot-url", self.url)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("server-prod-one.zip", done.stdout)
        self.assertIn('"result": "succeeded"', done.stdout)

    def test_within_azd_the_outputs_are_variables(self) -> None:
        outputs, told = self.state["outputs"], {}
        self.change(outputs={})
        for name, value in outputs.items():
            told[name] = value if isinstance(value, str) else str(value).replace("'", '"')
        done = self.run_script("deploy", *self.packages("one"), "--slot-url", f"{self.url}/slot", *FAST, AZURE_ENV_NAME="prod", **told)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assert_runs("one")

    def test_without_infrastructure_it_says_what_to_do(self) -> None:
        self.change(outputs={})
        done = self.deploy("one")
        self.assertEqual(1, done.returncode)
        self.assertIn("First: scripts/bootstrap prod", done.stderr)


class Staging(World):
    """Without a slot: published directly, and back by the kept package."""

    environment = "staging"

    def test_it_is_deployed_and_goes_back_by_its_package(self) -> None:
        self.deployed("one")
        self.change(metrics={"server-staging-two.zip": {"Requests": 100, "Http5xx": 50}})
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assert_runs("one")
        self.assertEqual(0, self.state["swaps"])

    def test_a_server_of_which_half_was_published_goes_back(self) -> None:
        self.deployed("one")
        self.fail("webapp deploy .*two", "ERROR: the upload was cut", times=9, after=True)
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assertIn("went back", done.stderr)
        self.assert_runs("one")

    def test_a_server_that_does_not_come_up_goes_back(self) -> None:
        self.deployed("one")
        self.change(unhealthy=["server-staging-two"])
        done = self.deploy("two")
        self.assertEqual(1, done.returncode)
        self.assert_runs("one")

    def test_functions_that_fail_while_it_is_watched_go_back(self) -> None:
        self.deployed("one")
        self.fail("monitor metrics list", "ERROR", times=0)
        self.change(telemetry={"server-staging-two.zip": {"failing": 0, "breakers": 0, "calls": 100, "failed": 50}})
        self.assertEqual(1, self.deploy("two").returncode)
        self.assert_runs("one")


if __name__ == "__main__":
    unittest.main()
