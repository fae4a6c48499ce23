"""The table of signals (src/telemetry/metrics/signals/rows.rs) as `function-handlers signals --json` prints it, read from the
source: infrastructure is checked without building anything."""

import functools
import json
import re
from pathlib import Path

STRING = r'"((?:[^"\\]|\\.)*)"'
METRIC = re.compile(rf"^ {{4}}(\w+), {STRING}, Kind::(\w+)(?:\(\w+\))?, {STRING},\s+\[([^\]]*)\],", re.M)
CONSTANT = re.compile(rf"^const (\w+): &str = {STRING};", re.M)
ROW = re.compile(
    rf"Signal::(?P<made>ours|platform)\({STRING}, \((?P<one>[^)]*)\), (?P<measure>\w+)(?:\(&(?P<share>\[.*?\])\))?,\s*(?P<panel>\w+),\s*"
    rf"{STRING}\)(?P<further>.*?)(?=,\s*(?:Signal::|//|\];))",
    re.S,
)
PAIR = re.compile(rf"\({STRING}, {STRING}\)")
LEVEL = re.compile(r"\.(warn|critical)\(([^)]*)\)")
EMITTERS = {"Handlers": "function-handlers", "Server": "conversation-server", "Both": "both"}


def number(text: str):
    value = float(text.replace("_", ""))
    return int(value) if value.is_integer() else value


@functools.cache
def read(root: Path) -> dict:
    """`{"metrics": […], "signals": […]}` of the sources below `root`."""
    folder = root / "src" / "telemetry" / "metrics"
    metrics = {
        name: {"name": spelt, "kind": kind.lower(), "unit": unit, "attributes": re.findall(STRING, attributes)}
        for name, spelt, kind, unit, attributes in METRIC.findall((folder / "table.rs").read_text())
    }
    text = (folder / "signals" / "rows.rs").read_text()
    constants = dict(CONSTANT.findall(text))
    signals = [signal(match, metrics, constants) for match in ROW.finditer(text)]
    if len(signals) != text.count("Signal::ours(") + text.count("Signal::platform("):
        raise ValueError("signals/rows.rs has rows of a form that scripts/lib/bicep/signals.py does not know")
    return {"metrics": list(metrics.values()), "signals": signals}


def signal(match: re.Match, metrics: dict, constants: dict) -> dict:
    name, meaning = match.group(2), match.group(7)
    first, second = (part.strip() for part in match["one"].split(","))
    further = match["further"]
    only = dict(PAIR.findall(found[1])) if (found := re.search(r"\.only\(&(\[.*?\])\)", further)) else {}
    if match["made"] == "ours":
        source = {"metric": metrics[first.removeprefix("M::")]["name"], "only": only}
        emitter, unit = EMITTERS[second], "number"
    else:
        of = re.search(rf"\.of\({STRING}\)", further)
        source = {"resource": constants.get(first, first.strip('"')), "metric": second.strip('"'), "of": of[1] if of else None}
        emitter, unit = "the platform", "percent"
    if found := re.search(r"\.unit\((?:\w+::)*(\w+)\)", further):
        unit = found[1].lower()
    levels: dict = {"warn": None, "critical": None}
    for kind, given in LEVEL.findall(further):
        parts = [part.strip() for part in given.split(",")]
        severity = 2 if kind == "warn" else int(parts[2])
        levels[kind] = {"at": number(parts[0]), "minutes": number(parts[1]), "severity": severity, "channel": parts[-1].lower()}
    return {
        "name": name, "source": source, "emitter": emitter, "measure": match["measure"].lower(),
        "matching": dict(PAIR.findall(match["share"])) if match["share"] else None, "unit": unit,
        **levels, "panel": constants[match["panel"]], "meaning": meaning.replace('\\"', '"'),
    }  # fmt: skip


def written(root: Path) -> str:
    return json.dumps(read(root), indent=2, ensure_ascii=False) + "\n"
