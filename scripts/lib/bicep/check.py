"""scripts/check-bicep without the compiler: syntax, names, schemas, and our own rules on what each parameter file makes.

It is not the compiler. It knows the language as far as these templates use it, says so where it meets more, and says
nothing about what only Azure knows.
"""

import os
import re
import sys
from pathlib import Path

from . import declared, evaluate, names, rules, schema, signals, syntax
from .settings import Settings
from .syntax import Finding

# Exit codes.
CLEAN, WRONG, PARTIAL = 0, 1, 3


class Missing(Exception):
    """A part of the check that cannot be done here."""


def types(root: Path) -> schema.Types:
    stated = os.environ.get("COLLOQUY_BICEP_TYPES")
    # Beside the project, or beside the folder that holds its work trees.
    places = [Path(stated)] if stated else [root / ".." / "shared" / "bicep-types" / "types.json", root / ".." / ".." / "shared" / "bicep-types" / "types.json"]
    for place in places:
        if place.is_file():
            return schema.Types(place)
    raise Missing(f"no resource types at {places[0]} (COLLOQUY_BICEP_TYPES): types, versions, properties and values are not checked")


def check(folder: Path, root: Path, known: schema.Types | None, only: set[str] | None = None) -> list[Finding]:
    """Everything wrong with the templates in `folder`; `root` has the project's docs and sources. `only`: the environments to
    work out, all if there is none."""
    parse = syntax.parser()
    paths = sorted([*folder.rglob("*.bicep"), *folder.rglob("*.bicepparam")])
    files = {}
    for path in paths:
        shown = path.resolve().relative_to(root) if path.resolve().is_relative_to(root) else path.relative_to(folder.parent)
        files[path.resolve()] = syntax.read(parse, path, str(shown))
    found = [finding for file in files.values() for finding in file.findings]
    if any(finding.rule == "syntax" for finding in found):
        return found
    for path, file in files.items():
        checked = names.Names(files, file)
        checked.check()
        found += checked.findings
        if path.suffix == ".bicepparam":
            found += names.parameter_file(file, files.get((path.parent / file.using).resolve()))
            continue
        found += rules.secrets_in_outputs(file) + rules.roles_of_groups(file)
        if known is not None:
            walk = schema.Check(known, file)
            for resource in file.of("resource"):
                walk.resource(resource)
            walk.accesses()
            found += walk.findings
    if any(finding.rule in ("names", "modules") for finding in found):
        return unique(found)
    found += variables(files, root)
    settings = Settings(folder, root)
    found += settings.findings() + table(folder, root)
    for path, file in files.items():
        if path.suffix != ".bicepparam" or (only is not None and path.stem not in only):
            continue
        world = evaluate.world(files, file)
        found += world.findings + held(world, file, files)
        if known is not None:
            for made in world.resources:
                schema.body(known, made, lambda at, rule, message, made=made: found.append(
                    Finding(made.file.name, rules.line_of(made, at.partition(".")[2].replace("[]", "")), rule, f"[{path.stem}] {message}")))
        found += rules.Rules(world, file, settings).check()
        try:
            found += alerts(world, root)
        except (KeyError, TypeError) as error:
            found.append(Finding("bicep/modules/alerts.bicep", 1, "alerts", f"a rule lacks what it needs: {error}"))
    return unique(found)


def variables(files: dict, root: Path) -> list[Finding]:
    """What parameter files read of the environment stands in docs/deploy.md: a misspelt optional one is never missed."""
    told = (root / "docs" / "deploy.md").read_text()
    found = []
    for path, file in files.items():
        if path.suffix == ".bicepparam":
            for number, text in enumerate(path.read_text().splitlines(), 1):
                for name in re.findall(r"readEnvironmentVariable\('(\w+)'", text):
                    if not re.search(rf"\b{name}\b", told):
                        found.append(Finding(file.name, number, "environment", f"{name} is not in docs/deploy.md"))
    return found


def held(world: evaluate.World, parameters: syntax.File, files: dict) -> list[Finding]:
    """Parameters and outputs against the types they are declared with."""
    found = []
    for file, name, value, line in world.held:
        declaration = file.declarations.get(name) if line is None else file.outputs.get(name)
        stated = parameters.declarations.get(name) if file.scope == "subscription" and line is None else None
        kind = declared.kind_of(declaration.type, file, files)
        where = (parameters.name, stated.line) if stated else (file.name, declaration.line)
        rule = "parameters" if line is None else "outputs"
        found += [Finding(*where, rule, f"[{parameters.path.stem}] {problem}") for problem in declared.problems(kind, value, name)]
    return found


def table(folder: Path, root: Path) -> list[Finding]:
    committed = folder / "signals.json"
    if not committed.is_file() or committed.read_text() != signals.written(root):
        return [Finding("bicep/signals.json", 1, "signals", "differs from src/telemetry/metrics/signals/rows.rs: scripts/check-bicep --write-signals")]
    return []


def alerts(world: evaluate.World, root: Path) -> list[Finding]:
    """Every level of the table is an alert rule of its severity and threshold, and there is no other."""
    made = {}
    for one in world.resources:
        if one.type in ("Microsoft.Insights/scheduledQueryRules", "Microsoft.Insights/metricAlerts"):
            made[str(one.body["name"]).removeprefix(f"{world.parameters['project']}-{world.parameters['environmentName']}-")] = one
    found = []
    wanted = {}
    for signal in signals.read(root)["signals"]:
        source = signal["source"]
        if source.get("resource") == "Microsoft.Consumption/budgets" or (source.get("resource") == "Microsoft.Cache/redisEnterprise" and not world.parameters.get("redis")):
            continue
        for kind in ("warn", "critical"):
            if signal[kind]:
                wanted[f"{signal['name']}-{kind}"] = (signal, signal[kind])
    at = next((one for one in made.values()), None)
    file, line = (at.file.name, at.declaration.line) if at else ("bicep/main.bicep", 1)
    for name, (signal, level) in wanted.items():
        if name not in made:
            found.append(Finding(file, line, "alerts", f"no rule alerts on {name}"))
            continue
        body = made[name].body["properties"]
        condition = body["criteria"]["allOf"][0]
        share = signal["source"].get("of") is not None
        if body["severity"] != level["severity"] or (not share and condition["threshold"] != level["at"]):
            found.append(Finding(file, made[name].declaration.line, "alerts", f"{name}: severity or threshold is not the table's"))
        if signal["emitter"] != "the platform" and f'"{signal["source"]["metric"]}"' not in condition["query"]:
            found.append(Finding(file, made[name].declaration.line, "alerts", f"{name} does not ask for {signal['source']['metric']}"))
    found += [Finding(file, one.declaration.line, "alerts", f"{name} is in no row of the table") for name, one in made.items() if name not in wanted]
    return found


def unique(found: list[Finding]) -> list[Finding]:
    # One line with one rule is one mistake, though three environments meet it, or both walks see it.
    seen, kept = set(), []
    for finding in found:
        plain = (finding.file, finding.line, finding.rule, finding.message.partition("] ")[2] or finding.message)
        if plain not in seen:
            seen.add(plain)
            kept.append(finding)
    return sorted(kept, key=lambda finding: (finding.file, finding.line))


def main(root: Path, arguments: list[str]) -> int:
    if arguments == ["--write-signals"]:
        (root / "bicep" / "signals.json").write_text(signals.written(root))
        return CLEAN
    folder = Path(arguments[0]).resolve() if arguments else root / "bicep"
    known, code = None, CLEAN
    try:
        known = types(root)
    except Missing as missing:
        print(f"not done: {missing}", file=sys.stderr)
        code = PARTIAL
    # Values that a parameter file takes from the environment are placeholders here, whatever this machine's are.
    for name in [name for name in os.environ if name.startswith(("COLLOQUY_", "AZURE_")) and name != "COLLOQUY_BICEP_TYPES"]:
        del os.environ[name]
    found = check(folder, root, known)
    for finding in found:
        print(finding)
    return WRONG if found else code
