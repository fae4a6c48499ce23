"""scripts/check-bicep finds each class of mistake, and says where. Run by `scripts/check-bicep --self-test`."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from bicep import check, syntax

from mistakes import MISTAKES

ROOT = Path(__file__).resolve().parent.parent.parent
# Found without working anything out.
STATIC = {"syntax", "names", "start", "unused", "described", "secure", "modules", "secret-output", "type", "api-version", "read-only", "nesting", "signals"}
TYPED = {"type", "api-version", "property", "required", "read-only", "literal", "value", "nesting"}


class Found(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        try:
            cls.types = check.types(ROOT)
        except check.Missing:
            cls.types = None
        cls.place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.place.cleanup)
        shutil.copytree(ROOT / "bicep", Path(cls.place.name) / "bicep")

    def test_the_templates_are_clean(self) -> None:
        self.assertEqual([], [str(finding) for finding in check.check(ROOT / "bicep", ROOT, self.types)])

    def test_the_switches_that_no_environment_uses_are_clean_too(self) -> None:
        for switches in (
            ["bastion = true", "managementAddresses = ['203.0.113.0/24']", "serverDomain = 'api.example.com'", "frontDoorSku = 'Premium_AzureFrontDoor'",
             "deniedAddresses = ['198.51.100.7/32']", "staticWebDomain = 'chat.example.com'", "breakGlassGroupId = 'b'", "pipelinePrincipalId = 'p'", "exportPrincipalId = 'e'", "eventGridSecret = 's'"],
            ["frontDoor = false", "staticWeb = false", "serverDomain = 'api.example.com'", "serverCertificateFromVault = true", "natGateway = false"],
            ["redis = false", "models = false", "serverDomain = 'api.example.com'", "frontDoor = false"],
        ):  # fmt: skip
            with self.subTest(switches[0]):
                changed = Path(self.place.name) / "bicep" / "prod.bicepparam"
                text = changed.read_text()
                names = [switch.split(" ")[0] for switch in switches]
                kept = [line for line in text.splitlines() if line.split(" ")[1:2] not in [[name] for name in names]]
                changed.write_text("\n".join(kept + [f"param {switch}" for switch in switches]) + "\n")
                try:
                    found = check.check(Path(self.place.name) / "bicep", ROOT, self.types, {"prod"})
                finally:
                    changed.write_text(text)
                self.assertEqual([], [str(finding) for finding in found])

    def test_each_mistake_is_found_with_file_line_and_rule(self) -> None:
        for mistake in MISTAKES:
            with self.subTest(mistake.name):
                if mistake.rule in TYPED and self.types is None:
                    self.skipTest("no resource types here")
                self.one(mistake)

    def one(self, mistake) -> None:
        place = Path(self.place.name)
        changed, named = place / mistake.file, mistake.found_in or mistake.file
        text = changed.read_text()
        self.assertIn(mistake.old, text, "the mistake cannot be made any more: the file has changed")
        changed.write_text(text.replace(mistake.old, mistake.new, 1))
        try:
            lines = {number for number, line in enumerate((place / named).read_text().splitlines(), 1) if mistake.line in line}
            found = check.check(place / "bicep", ROOT, self.types, environments(mistake))
        finally:
            changed.write_text(text)
        told = "\n".join(map(str, found))
        hit = {finding.line for finding in found if (finding.file, finding.rule) == (named, mistake.rule)}
        self.assertTrue(hit, f"not found in {named} by {mistake.rule}; found:\n{told}")
        self.assertTrue(hit & lines, f"told for line {hit}, and it is {lines}:\n{told}")


class Script(unittest.TestCase):
    """The script around it, with a stand-in for the compiler."""

    def run_with(self, said: str | None, **environment: str) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as place:
            if said is not None:
                compiler = Path(place) / "bicep"
                compiler.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo stand-in && exit 0\nprintf '%s' '{said}' >&2\n")
                compiler.chmod(0o755)
            path = {"PATH": f"{place}:{os.environ['PATH']}"}
            return subprocess.run([ROOT / "scripts" / "check-bicep"], env=os.environ | path | environment, capture_output=True, text=True, check=False)

    def test_a_warning_of_the_compiler_is_an_error(self) -> None:
        done = self.run_with("main.bicep(1,1) : Warning no-unused-params: …")
        self.assertEqual(1, done.returncode)
        self.assertIn("no-unused-params", done.stdout)

    def test_a_silent_compiler_is_believed_and_our_rules_still_run(self) -> None:
        done = self.run_with("", COLLOQUY_BICEP_TYPES="/nowhere")
        self.assertEqual(3, done.returncode, done.stdout + done.stderr)
        self.assertIn("stand-in", done.stderr)
        self.assertIn("not done: no resource types at /nowhere", done.stderr)

    def test_without_a_compiler_it_says_what_it_is(self) -> None:
        if shutil.which("bicep"):
            self.skipTest("there is a compiler here")
        self.assertIn("not the compiler", self.run_with(None).stderr)


def environments(mistake) -> set[str]:
    """Those that show it: working all of them out each time would take a minute."""
    if mistake.rule in STATIC:
        return set()
    if mistake.rule == "condition":
        return {"dev"}
    named = [Path(file).stem for file in (mistake.file, mistake.found_in) if file.endswith(".bicepparam")]
    return set(named) or {"prod"}


class Read(unittest.TestCase):
    """The grammar's own order of operators is put right."""

    def shape(self, expression: str) -> str:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "one.bicep"
            path.write_text(f"var v = {expression}\n")
            file = syntax.read(syntax.parser(), path, "one.bicep")
        self.assertEqual([], file.findings)
        return shape(file.declarations["v"].value)

    def test_operators_bind_as_the_language_says(self) -> None:
        for expression, expected in [
            ("a && x.y != b", "(a && (x.y != b))"),
            ("a != 'x' && i.s.u == 'p' ? [] : [c[d.e]]", "(((a != 'x') && (i.s.u == 'p')) ? [] : [c[d.e]])"),
            ("c ? x : i.l * n / 100", "(c ? x : ((i.l * n) / 100))"),
            ("!a.b", "(!a.b)"),
            ("a - b - c", "((a - b) - c)"),
            ("(a ? b : c).d", "(a ? b : c).d"),
            ("map(m, x => !x.a && x.b != 'r')", "map(m, x => ((!x.a) && (x.b != 'r')))"),
            ("map(m, (x, i) => x.a == 1 ? x.b : x.c)", "map(m, x i => ((x.a == 1) ? x.b : x.c))"),
        ]:
            self.assertEqual(expected, self.shape(expression))


def shape(node) -> str:
    parts = [shape(part) for part in node.parts if isinstance(part, syntax.Node)]
    match node.kind:
        case "name":
            return node.value
        case "text":
            return repr(node.value)
        case "literal":
            return str(node.value)
        case "member":
            return f"{parts[0]}.{node.value}"
        case "index":
            return f"{parts[0]}[{parts[1]}]"
        case "binary":
            return f"({parts[0]} {node.value} {parts[1]})"
        case "unary":
            return f"({node.value}{parts[0]})"
        case "choose":
            return f"({parts[0]} ? {parts[1]} : {parts[2]})"
        case "array":
            return f"[{' '.join(parts)}]"
        case "lambda":
            return f"{' '.join(node.value)} => {parts[0]}"
        case "call":
            return f"{node.value}({', '.join(parts)})"
    return node.kind


if __name__ == "__main__":
    unittest.main()
