"""What scripts/lib/package.py refuses, and that it gives the same bytes each time."""

import json
import os
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts" / "lib"))

import package  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Packages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def binary(self, content: bytes) -> Path:
        path = self.folder / "program"
        path.write_bytes(content)
        return path

    def assert_refused(self, content: bytes, reason: str):
        with self.assertRaisesRegex(package.Wrong, reason):
            package.check(self.binary(content), COMMIT, "2.28")

    def test_what_fits_passes(self):
        package.check(self.binary(COMMIT.encode() + b"\0GLIBC_2.28\0GLIBC_2.2.5\0"), COMMIT, "2.28")

    def test_a_newer_glibc_is_refused(self):
        self.assert_refused(COMMIT.encode() + b"\0GLIBC_2.28\0GLIBC_2.34\0", "needs glibc 2.34")

    def test_another_commit_is_refused(self):
        self.assert_refused(b"\0GLIBC_2.28\0", "was not built from")

    def test_the_name_of_a_folder_is_refused(self):
        self.assert_refused(COMMIT.encode() + str(Path.cwd()).encode(), "names this machine's folder")

    def test_a_program_that_was_not_built_is_refused(self):
        with self.assertRaisesRegex(package.Wrong, "is missing"):
            package.check(self.folder / "nothing", COMMIT, "2.28")

    def test_the_same_files_give_the_same_bytes_whenever_they_were_written(self):
        program, made = self.binary(b"program"), []
        for time in (1_000_000_000, 1_700_000_000):
            os.utime(program, (time, time))
            target = self.folder / f"{time}.zip"
            package.pack_program(target, program, ["host.json", "colloquy.toml"])
            made.append(target)
        self.assertEqual(*(one.read_bytes() for one in made))
        with zipfile.ZipFile(made[0]) as content:
            modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in content.infolist()}
        self.assertEqual(modes, {"program": 0o755, "host.json": 0o644, "colloquy.toml": 0o644})

    def test_the_consoles_pages_are_packed_without_what_only_the_server_serves(self):
        for name in ("index.html", "index.html.gz", "staticwebapp.config.json", ".gitkeep", "assets/index-abc.js", "assets/index-abc.js.gz"):
            path = self.folder / "dist" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        target = self.folder / "console.zip"
        package.pack(target, package.pages(self.folder / "dist"))
        with zipfile.ZipFile(target) as content:
            self.assertEqual(content.namelist(), ["assets/index-abc.js", "index.html", "staticwebapp.config.json"])

    def test_the_parts_of_the_console_are_its_npm_packages_alone(self):
        kinds = {one["purl"].split("/")[0] for one in json.loads(package.parts("console", "1.0.0"))["components"]}
        self.assertEqual(kinds, {"pkg:npm"})

    def test_the_parts_of_the_server_are_listed_with_licence_and_digest_and_the_same_each_time(self):
        text = package.parts("conversation-server", "1.0.0")
        self.assertEqual(text, package.parts("conversation-server", "1.0.0"))
        document = json.loads(text)
        by_name = {one["name"]: one for one in document["components"]}
        tokio = by_name["tokio"]
        self.assertTrue(tokio["purl"].startswith("pkg:cargo/tokio@"))
        self.assertEqual(tokio["licenses"][0]["expression"], "MIT")
        self.assertEqual(len(tokio["hashes"][0]["content"]), 64)
        self.assertNotIn("proptest", by_name, "nothing that only tests use")
        self.assertNotIn("windows-sys", by_name, "nothing of other systems")


if __name__ == "__main__":
    unittest.main()
