"""A page of docs/evidence: what was measured, on what, by which command; tables, plots, and the raw data beside."""

import csv
import io
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import machine

from .measuring import ROOT, Bench, Spread

FULL = ROOT / "docs" / "evidence"


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(values: Spread) -> str:
    return f"{number(values.median)} ({number(values.low)}–{number(values.high)})"


def mebibytes(size: float) -> str:
    return f"{size / 1048576:.1f} MiB"


class Report:
    """Collects a page and writes it at the end: a run that fails leaves the page of the run before."""

    def __init__(self, bench: Bench, name: str, title: str):
        # A short run shows that it runs. Its figures are nobody's evidence.
        self.directory = bench.directory / "evidence" if bench.short else FULL
        self.name = name
        self.command = f"scripts/bench {name}" + (" --short" if bench.short else "")
        self.started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self.load = os.getloadavg()
        self.parts = [f"# {title}"]
        self.files: dict[str, str] = {}

    def text(self, text: str) -> None:
        self.parts.append(text)

    def heading(self, text: str) -> None:
        self.parts.append(f"## {text}")

    def table(self, headings: list[str], rows: list[list[str]]) -> None:
        lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
        self.parts.append("\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]))

    def plot(self, name: str, svg: str, what: str) -> None:
        self.files[f"{self.name}-{name}.svg"] = svg
        self.parts.append(f"![{what}]({self.name}-{name}.svg)")

    def data(self, rows: list[dict], name: str = "") -> None:
        """Raw figures as CSV, one line a measurement."""
        if not rows:
            return
        file = f"{self.name}{'-' if name else ''}{name}.csv"
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines: list[list] = [columns] + [[row.get(column, "") for column in columns] for row in rows]
        lines = [[json.dumps(cell) if isinstance(cell, (list, dict)) else f"{cell:.6g}" if isinstance(cell, float) else cell for cell in line] for line in lines]
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows(lines)
        self.files[file] = written.getvalue()
        self.parts.append(f"Raw: [{file}]({file}).")

    def write(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (self.directory / name).write_text(content)
        self.parts.insert(1, self.surroundings())
        page = self.directory / f"{self.name}.md"
        page.write_text("\n\n".join(self.parts) + "\n")
        return page

    def surroundings(self) -> str:
        """Where and how: what a reader needs to judge the figures and to get them again."""
        cpus = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1048576
        commit = said(["git", "rev-parse", "--short", "HEAD"])
        if said(["git", "status", "--porcelain", "--untracked-files=no"]):
            commit += " with changes that are not committed"
        postgres = said([str(machine.postgres_bin() / "postgres"), "--version"]) if machine.postgres_bin() else ""
        versions = [said(["rustc", "--version"]), postgres, f"Python {platform.python_version()}", f"Node {said(['node', '--version'])}"]
        load = lambda figures: ", ".join(f"{figure:.1f}" for figure in figures)
        return "\n".join([
            "| | |", "|---|---|",
            f"| command | `{self.command}` |",
            f"| commit | {commit} |",
            f"| begun | {self.started} |",
            f"| machine | {len(cpus)} cores of {cpus[0] if cpus else platform.machine()}, {memory:.0f} GiB, Linux {platform.release()} |",
            f"| versions | {'; '.join(filter(None, versions))} |",
            f"| load average before, after (1, 5, 15 min) | {load(self.load)}; {load(os.getloadavg())} |",
        ])  # fmt: skip


def said(command: list[str]) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
