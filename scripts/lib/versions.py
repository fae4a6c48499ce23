"""The pinned versions of scripts/versions, as a dictionary."""

from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "versions"


def read() -> dict[str, str]:
    pairs = (line.split("=", 1) for line in FILE.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value for name, value in pairs}
