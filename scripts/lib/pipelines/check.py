"""What is wrong with the pipelines: actionlint, schemas, and our own rules."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PIN = re.compile(r"^\s*(?:- )?uses:\s*(\S+)(?:\s+#\s*(\S+))?\s*$")
SCRIPT = re.compile(r"(?<![\w/.-])(scripts/[\w-]+|\.ci/[\w-]+)")
# Whose actions may run. Another owner is a decision, not a habit.
OWNERS = ("actions/", "azure/")
KINDS = ("actionlint", "schema", "rules")
# Rights that a workflow may have, beyond reading its own code, only in a job that signs in.
ONLY_TO_SIGN_IN = {"id-token": "write"}


def check(folder: Path, kinds: tuple[str, ...] = KINDS, only: str = "") -> tuple[list[str], bool]:
    """What is wrong, and whether a part was left out. `only`: the one file that linter and schema look at."""
    workflows, pipelines = sorted((folder / ".github" / "workflows").glob("*.yml")), sorted((folder / "azure-pipelines").glob("*.yml"))
    found = []
    seen = [path for path in workflows + pipelines if str(path).endswith(only)]
    partial = not shutil.which("node")
    if "actionlint" in kinds and not partial:
        found += actionlint([path for path in workflows if path in seen])
    read = {}
    for path in workflows + pipelines:
        try:
            read[path] = YAML(typ="safe").load(path.read_text())
        except YAMLError as error:
            found.append(f"{path}: {str(error).splitlines()[0]}")
    whole = len(read) == len(workflows) + len(pipelines)
    if whole and "schema" in kinds:
        found += schema("github-workflows", [path for path in workflows if path in seen]) + schema("azure-pipelines", [path for path in pipelines if path in seen])
    if whole and "rules" in kinds:
        for path, content in read.items():
            found += list(of_github(path, content) if path in workflows else of_azure(path, content))
            found += list(scripts(path))
        found += list(bicep(folder / ".github" / "workflows" / "infrastructure.yml", read))
        found += list(missing(folder)) + list(azd(folder / "azure.yaml")) + list(published(folder))
    return [line.replace(f"{folder}/", "", 1) for line in found], partial


def main(folder: Path) -> int:
    found, partial = check(folder)
    for line in found:
        print(line)
    if partial:
        print("no Node here: actionlint was left out", file=sys.stderr)
    return 1 if found else 3 if partial else 0


def actionlint(files: list[Path]) -> list[str]:
    if not files:
        return []
    done = subprocess.run(["node", str(Path(__file__).with_name("actionlint.cjs")), *map(str, files)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [f"actionlint failed: {done.stderr.strip()}"]
    return done.stdout.splitlines()


# What the published schema of Azure Pipelines lists among its tasks, and then has no pattern for: the version before has the same inputs.
FORGOTTEN = {"PublishCodeCoverageResults@2": "PublishCodeCoverageResults@1"}


def schema(name: str, files: list[Path]) -> list[str]:
    """The schemas come with the package: nothing is fetched."""
    with tempfile.TemporaryDirectory() as place:
        copies = []
        for file in files:
            text = file.read_text()
            for task, known in FORGOTTEN.items():
                text = text.replace(task, known)
            copies.append(Path(place) / file.name)
            copies[-1].write_text(text)
        return [line.replace(str(copies[0].parent), str(files[0].parent)) for line in against_schema(name, copies)] if files else []


def against_schema(name: str, files: list[Path]) -> list[str]:
    more = ["--data-transform", "azure-pipelines"] if name == "azure-pipelines" else []
    # The pipelines' schema has a pattern that a stricter reader of patterns refuses.
    command = [sys.executable, "-m", "check_jsonschema", "--regex-variant", "nonunicode", "--builtin-schema", f"vendor.{name}", *more, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    # Of each file the first error names everything; the deepest names the place.
    found, told = [], done.stdout + done.stderr
    for file in files:
        part = told.partition(f"{file}::")[2].split("\n  " + str(file.parent), 1)[0]
        deepest = [line.strip() for line in part.splitlines() if line.strip().startswith("$.")]
        if part:
            found.append(f"{file}: schema: {deepest[-1][:300] if deepest else part.splitlines()[0][:300]}")
    return found or [f"{files[0].parent}: schema: {told.strip()[:300]}"]


def of_github(path: Path, workflow: dict) -> Iterator[str]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        pin = PIN.match(line)
        if not pin or pin[1].startswith("./"):
            continue
        name, _, at = pin[1].partition("@")
        if not re.fullmatch(r"[0-9a-f]{40}", at):
            yield f"{path}:{number}: {name} is not pinned by a commit's full hash: a tag can be moved"
        elif not pin[2] or not re.fullmatch(r"v\d+(\.\d+)*", pin[2]):
            yield f"{path}:{number}: {name}: which version the hash is stands behind it, as `# v1.2.3`"
        if not name.startswith(OWNERS):
            yield f"{path}:{number}: {name} is of an owner that is not among {', '.join(OWNERS)}"
    # YAML 1.1 reads `on` as true.
    events = workflow.get("on", workflow.get(True)) or {}
    if "pull_request_target" in events or "workflow_run" in events:
        yield f"{path}: runs a stranger's code with our rights (pull_request_target, workflow_run)"
    if workflow.get("permissions") != {"contents": "read"}:
        yield f"{path}: the workflow's permissions are `contents: read`; a job that needs more says so"
    for name, job in workflow["jobs"].items():
        yield from of_job(path, name, job)


def of_job(path: Path, name: str, job: dict) -> Iterator[str]:
    at = f"{path}: job {name}"
    steps = job.get("steps", [])
    signs_in = any(str(step.get("uses", "")).startswith("azure/login@") for step in steps)
    beyond = {right: value for right, value in (job.get("permissions") or {}).items() if (right, value) != ("contents", "read")}
    if beyond and (beyond != ONLY_TO_SIGN_IN or not signs_in):
        yield f"{at}: it has rights that it does not need: {beyond}"
    if signs_in and beyond != ONLY_TO_SIGN_IN:
        yield f"{at}: it signs in to Azure by a token, and may not ask for one (id-token: write)"
    if "timeout-minutes" not in job:
        yield f"{at}: no timeout-minutes: what hangs would run for six hours"
    changes = any(re.search(r"scripts/(deploy|rollback|swap|rotate)\b(?!.*--dry-run)|bootstrap.*--yes", str(step.get("run", ""))) for step in steps) and signs_in
    if changes and not job.get("environment"):
        yield f"{at}: it changes Azure and has no environment, so nobody is asked"
    if changes and not job.get("concurrency"):
        yield f"{at}: it changes Azure and has no concurrency: two would run at once"
    for step in steps:
        if str(step.get("uses", "")).startswith("actions/checkout@") and (step.get("with") or {}).get("persist-credentials") is not False:
            yield f"{at}: checkout leaves its token in the clone (persist-credentials: false)"
        for key in ("client-secret", "creds"):
            if key in (step.get("with") or {}):
                yield f"{at}: it signs in with a secret ({key}); by a federated token it needs none"
        for line in str(step.get("run", "")).splitlines():
            if "${{" in line:
                yield f"{at}: an expression inside a command is code that a caller may write; pass it by env"


def of_azure(path: Path, pipeline: dict) -> Iterator[str]:
    stages = pipeline.get("stages") or [{"jobs": pipeline.get("jobs", [])}]
    for job in (job for stage in stages for job in stage["jobs"]):
        name = job.get("job") or job.get("deployment")
        at = f"{path}: job {name}"
        steps = job.get("steps") or job.get("strategy", {}).get("runOnce", {}).get("deploy", {}).get("steps", [])
        if "timeoutInMinutes" not in job:
            yield f"{at}: no timeoutInMinutes"
        for step in steps:
            if step.get("checkout") == "self" and str(step.get("persistCredentials")).lower() != "false":
                yield f"{at}: checkout leaves its token in the clone (persistCredentials: 'false')"
            if step.get("task") and not re.fullmatch(r"\w+@\d+", step["task"]):
                yield f"{at}: the task {step['task']} has no version"
            text = str((step.get("inputs") or {}).get("inlineScript", "")) + str(step.get("script", ""))
            if re.search(r"scripts/(deploy|rollback|swap|rotate)(?![\w-])(?!.*--dry-run)", text) and not job.get("environment"):
                yield f"{at}: it changes Azure and has no environment, so nobody is asked"


def scripts(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("#") or re.search(r"\b(paths|hashFiles)\b", line):
            continue
        for name in SCRIPT.findall(line):
            if not (ROOT / name).exists():
                yield f"{path}:{number}: there is no {name}"


def bicep(path: Path, read: dict) -> Iterator[str]:
    """Whoever applies a parameter file sets what it reads."""
    wanted = {name for file in (ROOT / "bicep").glob("*.bicepparam") for name in re.findall(r"readEnvironmentVariable\('(\w+)'", file.read_text())}
    if path not in read:
        yield f"{path}: there is no such workflow"
        return
    # An argument for its absence: they are secrets, and a pull request gets none.
    kept_back = {"what-if": {"COLLOQUY_CHAT_WEBHOOK", "COLLOQUY_PAGE_WEBHOOK", "COLLOQUY_EVENT_GRID_SECRET"}}
    for name, job in read[path]["jobs"].items():
        if any("scripts/bootstrap" in str(step.get("run", "")) for step in job.get("steps", [])):
            lacking = wanted - set(job.get("env") or {}) - kept_back.get(name, set())
            for variable in sorted(lacking):
                yield f"{path}: job {name}: bicep/ reads {variable}, and it is not set"


def azd(path: Path) -> Iterator[str]:
    """The Developer CLI's file: hooks that there are, and the scripts that they run."""
    if not path.is_file():
        yield "azure.yaml is missing"
        return
    told = YAML(typ="safe").load(path.read_text())
    yield from scripts(path)
    for name in sorted(set(told) - {"name", "infra", "hooks"}):
        yield f"{path}: {name} is not expected: scripts/deploy publishes, azd has no services here"
    known = {f"{when}{what}" for when in ("pre", "post") for what in ("provision", "deploy", "package", "up", "down", "restore")}
    for name, hook in (told.get("hooks") or {}).items():
        if name not in known:
            yield f"{path}: azd has no hook {name}"
        if not hook.get("shell") or not str(hook.get("run", "")).startswith("scripts/"):
            yield f"{path}: the hook {name} says its shell, and runs one of our scripts"


def published(folder: Path) -> Iterator[str]:
    """Both continuous integrations publish what the tests said and what they ran."""
    for name, reports in (
        (".github/workflows/ci.yml", ("target/nextest/ci/junit.xml", "target/coverage/report")),
        ("azure-pipelines/ci.yml", ("target/nextest/ci/junit.xml", "target/coverage/report/cobertura.xml")),
    ):
        path = folder / name
        text = path.read_text() if path.is_file() else ""
        for report in reports:
            if not re.search(rf"^\s*(path|testResultsFiles|summaryFileLocation): {re.escape(report)}$", text, re.M):
                yield f"{path}: {report} is not published"


def missing(folder: Path) -> Iterator[str]:
    for name in ("ci", "deploy", "infrastructure", "drill"):
        if not (folder / ".github" / "workflows" / f"{name}.yml").is_file():
            yield f".github/workflows/{name}.yml is missing"
    for name in ("ci", "cd"):
        if not (folder / "azure-pipelines" / f"{name}.yml").is_file():
            yield f"azure-pipelines/{name}.yml is missing"


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(Path(sys.argv[1])))
