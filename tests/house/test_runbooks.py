"""scripts/check-house finds a runbook that lacks something. Run by `scripts/lint house`."""

import importlib.machinery
import importlib.util
import shutil
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
loader = importlib.machinery.SourceFileLoader("check_house", str(ROOT / "scripts" / "check-house"))
house = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_house", loader))
loader.exec_module(house)

# File below docs/runbooks, what is replaced by what, and what the finding says.
MISTAKES = [
    ("restore.md", "## Proof", "## Evidence", "sections are"),
    ("restore.md", "(database-replaced.md)", "(database-replace.md)", "database-replace.md, which is not there"),
    ("scale.md", "scripts/check-bicep", "scripts/check-bicap", "no scripts/check-bicap"),
    ("README.md", "[Redis is down](redis-down.md) | nothing", "Redis is down | nothing", "redis-down is not in the index"),
    ("README.md", "breaker, external-failing", "external-failing", "breaker leads to no page"),
    ("README.md", "| usage-lost |", "| usage-lost, usage-gone |", "no alert usage-gone"),
]


class Runbooks(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.root = Path(place.name)
        shutil.copytree(ROOT / "docs", self.root / "docs")
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "bicep").mkdir()
        shutil.copy(ROOT / "bicep" / "signals.json", self.root / "bicep")
        kept, house.ROOT = house.ROOT, self.root
        self.addCleanup(setattr, house, "ROOT", kept)

    def test_the_runbooks_are_whole(self) -> None:
        self.assertEqual([], list(house.runbooks()))

    def test_each_mistake_is_found(self) -> None:
        for file, old, new, told in MISTAKES:
            with self.subTest(told):
                path = self.root / "docs" / "runbooks" / file
                text = path.read_text()
                self.assertIn(old, text)
                path.write_text(text.replace(old, new, 1))
                try:
                    self.assertIn(told, "\n".join(house.runbooks()))
                finally:
                    path.write_text(text)

    def test_a_missing_page_and_a_strange_one_are_told(self) -> None:
        folder = self.root / "docs" / "runbooks"
        (folder / "scale.md").rename(folder / "grow.md")
        told = "\n".join(house.runbooks())
        self.assertIn("scale.md: this runbook is missing", told)
        self.assertIn("grow.md: it is not among", told)


if __name__ == "__main__":
    unittest.main()
