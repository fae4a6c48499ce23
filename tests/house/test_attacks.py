"""scripts/check-house finds a row of docs/attacks.md whose test is gone. Run by `scripts/lint house`."""

import importlib.machinery
import importlib.util
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
loader = importlib.machinery.SourceFileLoader("check_house", str(ROOT / "scripts" / "check-house"))
house = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_house", loader))
loader.exec_module(house)

HEAD = "| attack | what meets it | shown by |\n|---|---|---|\n"


class Attacks(unittest.TestCase):
    def told(self, shown: str) -> list[str]:
        """What is found of a page with one row that is shown by this."""
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            for name in ("docs", "tests", "fuzz"):
                (root / name).mkdir()
            (root / "docs" / "attacks.md").write_text(f"{HEAD}| It | is met | {shown} |\n")
            (root / "tests" / "a.rs").write_text("async fn it_is_met() {}\n")
            (root / "fuzz" / "fuzz_targets").mkdir()
            (root / "fuzz" / "fuzz_targets" / "tokens.rs").touch()
            kept, house.ROOT = house.ROOT, root
            try:
                return list(house.attacks())
            finally:
                house.ROOT = kept

    def test_the_list_names_what_is_there(self) -> None:
        self.assertEqual([], list(house.attacks()))

    def test_a_test_and_a_target_that_are_there_will_do(self) -> None:
        self.assertEqual([], self.told("`tests/a.rs` `it_is_met`; fuzz `tokens`"))
        self.assertEqual([], self.told("fuzz `tokens`"))

    def test_what_is_gone_is_told(self) -> None:
        for shown, told in [
            ("`tests/a.rs` `it_is_meant`", "no test it_is_meant in tests/a.rs"),
            ("`tests/b.rs` `it_is_met`", "no test it_is_met in tests/b.rs"),
            ("`tests/a.rs` `it_is_met`; fuzz `coins`", "no fuzz target coins"),
            ("the same", "names neither a test nor a fuzz target"),
        ]:
            with self.subTest(shown):
                self.assertIn(told, "\n".join(self.told(shown)))


if __name__ == "__main__":
    unittest.main()
