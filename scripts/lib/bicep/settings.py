"""What the binaries read, and what colloquy.toml asks of its environment."""

import json
import re
import tomllib
from pathlib import Path

from .syntax import Finding


class Settings:
    """What the binaries read: the generated table docs/settings.md, beside bicep/settings.json, which names those that no
    template sets."""

    ROW = re.compile(r"^\| `([^`]+)` \|(.*)\|$")

    def __init__(self, folder: Path, root: Path):
        self.rows = {}
        for line in (root / "docs" / "settings.md").read_text().splitlines():
            if found := self.ROW.match(line):
                self.rows[found[1].replace("\\", "")] = found[2]
        content = json.loads((folder / "settings.json").read_text())
        self.left = {name for group in content.values() for name in group}
        self.patterns = [re.compile(re.sub(r"<\w+>", "[A-Z0-9_]+", name)) for name in self.rows if "<" in name]
        self.toml = (root / "colloquy.toml").read_text()

    def findings(self) -> list[Finding]:
        return [Finding("bicep/settings.json", 1, "settings", f"{name} is no setting of docs/settings.md") for name in sorted(self.left - set(self.rows))]

    def knows(self, name: str) -> bool:
        return name in self.rows or any(pattern.fullmatch(name) for pattern in self.patterns) or "${" + name + "}" in self.toml

    def secret(self, name: str) -> bool:
        row = self.rows.get(name) or next((row for key, row in self.rows.items() if "<" in key and re.fullmatch(re.sub(r"<\w+>", "[A-Z0-9_]+", key), name)), "")
        return "*Secret.*" in row

    def decided(self) -> list[str]:
        return [name for name in self.rows if "<" not in name]

    def structure(self) -> list[str]:
        """What colloquy.toml, as it is shipped, makes required."""
        config = tomllib.loads(self.toml)
        names = re.findall(r"\$\{(\w+)\}", re.sub(r"(?m)^\s*#.*$", "", self.toml))
        for name, source in config.get("sources", {}).items():
            if "entra" not in source.get("auth", {}):
                names.append("WEBHOOK_SECRET_" + name.upper().replace("-", "_"))
            if source.get("kind") == "sailpoint":
                names.append("ENCRYPTION_KEY")
        names += ["CALLBACK_SECRET_" + name.upper().replace("-", "_") for name in config.get("targets", {})]
        return sorted(set(names))
