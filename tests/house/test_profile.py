"""scripts/profile finds where a live process spends its time. Run by `scripts/lint house`."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# One function that is busy below another, or a process that waits.
SOURCE = """
#include <unistd.h>
volatile unsigned long turned;
__attribute__((noinline)) void busy_inner(void) { for (unsigned i = 0; i < 100000000u; i++) turned += i; }
__attribute__((noinline)) void busy_outer(void) { for (;;) { busy_inner(); turned++; } }
int main(int count, char **words) { if (count > 1) for (;;) pause(); busy_outer(); return 0; }
"""
# perf may be there and refused by the kernel; the script then takes gdb.
ABLE = shutil.which("gdb")


class Profile(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        # A name longer than what the kernel keeps of it.
        cls.program = Path(place.name) / "a-program-with-a-long-name"
        source = Path(place.name) / "busy.c"
        source.write_text(SOURCE)
        subprocess.run(["cc", "-O1", "-fno-omit-frame-pointer", "-o", cls.program, source], check=True)

    def start(self, *arguments: str) -> subprocess.Popen:
        process = subprocess.Popen([self.program, *arguments], stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def profile(self, *arguments: str, with_perf: bool = True) -> subprocess.CompletedProcess:
        environment = dict(os.environ)
        if not with_perf:
            refused = Path(tempfile.mkdtemp(dir=self.program.parent))
            (refused / "perf").write_text("#!/bin/sh\nexit 1\n")
            (refused / "perf").chmod(0o755)
            environment["PATH"] = f"{refused}:{environment['PATH']}"
        return subprocess.run([ROOT / "scripts" / "profile", *arguments], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    # Half and more: what the kernel does meanwhile on a busy machine is counted too.
    @unittest.skipUnless(ABLE, "no gdb here")
    def test_what_is_busy_is_named_with_its_share_by_the_programs_name(self) -> None:
        self.start()
        for with_perf in (True, False):
            with self.subTest(with_perf=with_perf):
                done = self.profile(self.program.name, "1", with_perf=with_perf)
                self.assertEqual(0, done.returncode, done.stderr)
                itself, _, below = done.stdout.partition("In it and all it calls")
                self.assertRegex(itself, r"(?m)^ *([5-9]\d|100)\.\d % +busy_inner$")
                self.assertRegex(below, r"(?m)^ *([5-9]\d|100)\.\d % +busy_outer$")

    @unittest.skipUnless(ABLE, "no gdb here")
    def test_a_process_that_waits_is_not_said_to_be_busy(self) -> None:
        process = self.start("wait")
        for with_perf in (True, False):
            with self.subTest(with_perf=with_perf):
                done = self.profile(str(process.pid), "1", with_perf=with_perf)
                self.assertEqual(0, done.returncode, done.stderr)
                self.assertIn("nothing of it was busy", done.stdout)

    def test_several_of_a_name_and_none_are_told(self) -> None:
        first, second = self.start("wait"), self.start("wait")
        done = self.profile(self.program.name)
        self.assertEqual(1, done.returncode)
        self.assertIn("several processes run", done.stderr)
        for process in (first, second):
            self.assertIn(str(process.pid), done.stderr)
        self.assertIn("no process nothing-of-that-name", self.profile("nothing-of-that-name").stderr)
        self.assertIn("a whole number", self.profile(str(first.pid), "soon").stderr)


if __name__ == "__main__":
    unittest.main()
