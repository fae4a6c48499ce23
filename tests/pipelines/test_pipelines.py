"""scripts/check-pipelines finds each class of mistake. Run by `scripts/check-pipelines --self-test`."""

import shutil
import tempfile
import unittest
from pathlib import Path

from pipelines import check

G, A = ".github/workflows/", "azure-pipelines/"
# What it is, who finds it, in which file, what is replaced by what, and what the finding says.
MISTAKES = [
    ("a misspelt key", "actionlint", G + "ci.yml", "    timeout-minutes: 45", "    timeout-minuts: 45", "timeout-minuts"),
    ("an expression of nothing", "actionlint", G + "infrastructure.yml", "${{ matrix.environment }}-infrastructure", "${{ matrix.environmen }}-infrastructure", "environmen"),
    ("a need of no job", "actionlint", G + "deploy.yml", "    needs: package", "    needs: pakage", "pakage"),
    ("a title in a command", "actionlint", G + "ci.yml", "      - run: scripts/lint audit\n", "      - run: echo ${{ github.event.pull_request.title }}\n", "potentially untrusted"),
    ("a right that is not", "actionlint", G + "deploy.yml", "      id-token: write", "      id-token: writ", "writ"),
    ("a tag for a hash", "rules", G + "ci.yml", "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "actions/checkout@v7", "not pinned"),
    ("a hash without its version", "rules", G + "deploy.yml", " # v3.0.1", "", "which version"),
    ("an action of somebody", "rules", G + "ci.yml", "actions/cache@", "somebody/cache@", "owner"),
    ("a stranger's code with our rights", "rules", G + "ci.yml", "  pull_request:\n", "  pull_request_target:\n", "stranger's code"),
    ("rights for all jobs", "rules", G + "deploy.yml", "permissions:\n  contents: read\n\njobs", "permissions: write-all\n\njobs", "`contents: read`"),
    ("a right too many", "rules", G + "deploy.yml", "      id-token: write", "      id-token: write\n      packages: write", "does not need"),
    ("a right without use", "rules", G + "drill.yml", "    timeout-minutes: 90", "    timeout-minutes: 90\n    permissions:\n      contents: read\n      id-token: write", "does not need"),
    ("a token that cannot be asked for", "rules", G + "deploy.yml", "      id-token: write", "      id-token: none", "may not ask for one"),
    ("no end in sight", "rules", G + "drill.yml", "    timeout-minutes: 90\n", "", "no timeout-minutes"),
    ("nobody is asked", "rules", G + "deploy.yml", "    environment: prod\n", "", "nobody is asked"),
    ("two at once", "rules", G + "deploy.yml", "    concurrency: deploy-prod\n", "", "at once"),
    ("a token left behind", "rules", G + "deploy.yml", "          persist-credentials: false\n", "          persist-credentials: true\n", "leaves its token"),
    ("a secret to sign in with", "rules", G + "deploy.yml", "          client-id: ${{ vars.AZURE_CLIENT_ID }}", "          creds: ${{ secrets.AZURE }}", "signs in with a secret"),
    ("an expression in a command", "rules", G + "infrastructure.yml", 'scripts/bootstrap "$ENVIRONMENT" --what-if', "scripts/bootstrap ${{ matrix.environment }} --what-if", "pass it by env"),
    ("a script that is not there", "rules", G + "drill.yml", "scripts/build", "scripts/bild", "no scripts/bild"),
    ("a variable of Bicep's forgotten", "rules", G + "infrastructure.yml", "      COLLOQUY_OWNER: ${{ vars.COLLOQUY_OWNER }}\n", "", "COLLOQUY_OWNER"),
    ("a pipeline that is no YAML", "rules", A + "cd.yml", "stages:", "stages: [", "cd.yml"),
    ("a wrong kind of value", "schema", G + "drill.yml", "    timeout-minutes: 90", "    timeout-minutes: [90]", "schema"),
    ("a misspelt key of a pipeline", "schema", A + "ci.yml", "        displayName: Lint", "        displayNam: Lint", "schema"),
    ("a task without version", "rules", A + "ci.yml", "PublishTestResults@2", "PublishTestResults", "no version"),
    ("test results that nobody sees", "rules", G + "ci.yml", "          path: target/nextest/ci/junit.xml", "          path: target/nextest/ci", "junit.xml is not published"),
    ("coverage that nobody sees", "rules", A + "ci.yml", "summaryFileLocation: target/coverage/report/cobertura.xml", "summaryFileLocation: cobertura.xml", "cobertura.xml is not published"),
    ("a pipeline without end", "rules", A + "cd.yml", "        timeoutInMinutes: '120'\n", "", "no timeoutInMinutes"),
    ("nobody is asked in a pipeline", "rules", A + "cd.yml", "        environment: prod\n", "", "nobody is asked"),
    ("a hook that azd has not", "rules", "azure.yaml", "postprovision", "afterprovision", "no hook"),
    ("a hook's script that is not there", "rules", "azure.yaml", "scripts/azd finish", "scripts/azdd finish", "no scripts/azdd"),
    ("a pipeline leaves its token", "rules", A + "cd.yml", "                  persistCredentials: 'false'\n", "", "leaves its token"),
]  # fmt: skip


class Pipelines(unittest.TestCase):
    def setUp(self) -> None:
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name)
        for name in (".github", "azure-pipelines"):
            shutil.copytree(check.ROOT / name, self.folder / name)
        shutil.copy(check.ROOT / "azure.yaml", self.folder)

    def test_the_pipelines_are_clean(self) -> None:
        self.assertEqual([], check.check(self.folder)[0])

    def test_each_mistake_is_found(self) -> None:
        for name, kind, file, old, new, told in MISTAKES:
            with self.subTest(name):
                if kind == "actionlint" and not shutil.which("node"):
                    self.skipTest("no Node here")
                path = self.folder / file
                text = path.read_text()
                self.assertIn(old, text, "the mistake cannot be made any more: the file has changed")
                path.write_text(text.replace(old, new, 1))
                try:
                    self.assertRegex("\n".join(check.check(self.folder, (kind,), file)[0]), told)
                finally:
                    path.write_text(text)

    def test_a_missing_pipeline_is_told(self) -> None:
        (self.folder / G / "drill.yml").unlink()
        self.assertIn("drill.yml is missing", "\n".join(check.check(self.folder, ("rules",))[0]))


if __name__ == "__main__":
    unittest.main()
