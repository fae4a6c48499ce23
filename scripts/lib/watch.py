"""Which files changed, by looking: needs nothing installed, and a few hundred files cost a millisecond."""

from pathlib import Path

FOLDERS = ("src", "handlers", "server", "devhost", "migrations", "web/src", "web/public")
FILES = ("Cargo.toml", "Cargo.lock", "build.rs", "colloquy.toml", "host.json", "web/index.html", "web/package-lock.json")

Snapshot = dict[Path, tuple[int, int]]


def snapshot(root: Path) -> Snapshot:
    """Time and size of everything that the running app is made of."""
    paths = [root / name for name in FILES]
    paths += root.glob("*/function.json")
    for folder in FOLDERS:
        paths += (path for path in (root / folder).rglob("*") if not path.name.startswith(".") and not path.name.endswith("~"))
    seen = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        if path.is_file():
            seen[path] = (status.st_mtime_ns, status.st_size)
    return seen


def changed(before: Snapshot, after: Snapshot) -> list[Path]:
    """Added, removed or written."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
