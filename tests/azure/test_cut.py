"""Runs of scripts/deploy that are killed: the next one finishes what they began. Run by `scripts/deploy-test`."""

import re
import unittest

from world import World


class Cut(World):
    def test_a_run_cut_at_any_change_is_finished_by_the_next(self) -> None:
        self.deployed("one")
        for cut in ("config-zip", "functions/migrate", "webapp deploy --", "slot swap"):
            for after in (False, True):
                with self.subTest(cut, after=after):
                    name = f"{cut[:4]}{after}".replace(" ", "")
                    before = re.sub(r".*prod-|\.zip", "", self.state["production"])
                    self.fail(cut, kill=True, after=after)
                    self.assertEqual(-9, self.deploy(name).returncode)
                    done = self.deploy(name)
                    self.assertEqual(0, done.returncode, done.stderr)
                    self.assert_runs(name)
                    self.assertIn(before, self.state["slot"])
                    self.assertNotIn("deploying", self.kept())

    def test_a_run_cut_while_it_writes_its_state_is_finished_by_the_next(self) -> None:
        self.deployed("one")
        writes = [call for call in self.calls() if "upload --name prod/state.json" in call]
        for number in range(0, len(writes), 2):
            with self.subTest(number):
                self.change(fail=[{"match": "upload --name prod/state.json", "kill": True, "after": number % 4 == 0, "skip": number}])
                self.assertEqual(-9, self.deploy(f"n{number}").returncode)
                done = self.deploy(f"n{number}")
                self.assertEqual(0, done.returncode, done.stderr)
                self.assert_runs(f"n{number}")

    def test_a_way_back_cut_anywhere_is_finished(self) -> None:
        self.deployed("one")
        for cut in ("slot swap", "config-zip.*one"):
            for after in (False, True):
                with self.subTest(cut, after=after):
                    self.change(metrics={"server-prod-two.zip": {"Requests": 200, "Http5xx": 100}}, fail=[{"match": cut, "kill": True, "after": after, "skip": 1 if cut == "slot swap" else 0}])
                    self.assertEqual(-9, self.deploy("two").returncode)
                    done = self.rollback() if after else self.deploy("two")
                    self.went_back(done, "with 5xx") if not after else self.assert_runs("one")
                    self.assertNotIn("deploying", self.kept())


if __name__ == "__main__":
    unittest.main()
