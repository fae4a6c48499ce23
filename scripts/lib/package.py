"""Zips of the built programs and of the console's pages, lists of their parts, checksums. Called by scripts/package.

Every entry has the same time, order and mode whoever zips it: the same files give the same bytes.
"""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

TRIPLE = "x86_64-unknown-linux-gnu"
# The zip format begins here.
BEGINNING = (1980, 1, 1, 0, 0, 0)
# Read by the Functions host beside the folders that say `function.json`; migrations are compiled in.
HANDLERS = ["host.json", "colloquy.toml"]
SERVER = ["colloquy.toml"]
PAGES = Path("web/dist")


class Wrong(Exception):
    """What is built is not fit to be shipped."""


def main(arguments: list[str]) -> int:
    built, environment, commit, label, glibc = arguments
    version = tomllib.loads(Path("Cargo.toml").read_text())["package"]["version"]
    folder = Path("target/packages")
    folder.mkdir(parents=True, exist_ok=True)
    handlers = HANDLERS + sorted(str(path) for path in Path().glob("*/function.json"))
    try:
        for program, profile, files in (
            ("function-handlers", "release", handlers),
            ("conversation-server", "release-server", SERVER),
        ):
            binary = Path(built) / TRIPLE / profile / program
            check(binary, commit, glibc)
            target = folder / f"{program}-{version}-{environment}-{label}.zip"
            pack_program(target, binary, files)
            finish(target, program, version)
        if (PAGES / "index.html").exists():
            target = folder / f"console-{version}-{environment}-{label}.zip"
            pack(target, pages(PAGES))
            finish(target, "console", version)
        else:
            print("[package] no console: web/dist was not built, which needs Node. The server has none either.", file=sys.stderr)
    except Wrong as problem:
        print(f"[package] {problem}", file=sys.stderr)
        return 1
    return 0


def finish(target: Path, program: str, version: str) -> None:
    """The list of its parts and the checksum, beside it."""
    target.with_suffix(".cdx.json").write_text(parts(program, version))
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_suffix(".zip.sha256").write_text(f"{digest}  {target.name}\n")
    print(target)


def check(binary: Path, commit: str, glibc: str) -> None:
    """That it was built from this commit, and starts wherever that glibc is."""
    if not binary.exists():
        raise Wrong(f"{binary} is missing; run scripts/package without --no-build")
    content = binary.read_bytes()
    if commit.encode() not in content:
        raise Wrong(f"{binary} was not built from {commit}; run scripts/package without --no-build")
    needed = needed_glibc(content)
    if needed > number(glibc):
        raise Wrong(f"{binary} needs glibc {'.'.join(map(str, needed))}, and {glibc} is the newest allowed")
    for path in {str(Path.cwd()), str(Path.home())}:
        if path.encode() in content:
            raise Wrong(f"{binary} names this machine's folder {path}: the same commit would give other bytes elsewhere")


def needed_glibc(program: bytes) -> tuple[int, ...]:
    """The newest version of a symbol that a program wants of glibc; from its table of strings."""
    return max((number(found.decode()) for found in re.findall(rb"\0GLIBC_([0-9.]+)(?=\0)", program)), default=(0,))


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def pack_program(target: Path, binary: Path, files: list[str]) -> None:
    pack(target, [(binary.name, binary, 0o755), *((name, Path(name), 0o644) for name in files)])


def pages(folder: Path) -> list[tuple[str, Path, int]]:
    """What Static Web Apps serves: it compresses by itself, and hidden files are git's."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".gz" and not path.name.startswith("."))
    return [(path.relative_to(folder).as_posix(), path, 0o644) for path in found]


def pack(target: Path, entries: list[tuple[str, Path, int]]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package:
        for name, path, mode in sorted(entries):
            entry = zipfile.ZipInfo(name, BEGINNING)
            entry.compress_type = zipfile.ZIP_DEFLATED
            # By Unix, whatever zips it: or the mode would not be read.
            entry.create_system = 3
            entry.external_attr = (0o100000 | mode) << 16
            package.writestr(entry, path.read_bytes())


def parts(program: str, version: str) -> str:
    """What went into a program, as CycloneDX 1.6: crates, and for the server what the console is made of, which is all of the
    console's own package."""
    bom = Bom(serial_number=None, version=1)
    bom.metadata.timestamp = None
    root = Component(name=program, version=version, type=ComponentType.APPLICATION, bom_ref=program)
    bom.metadata.component = root
    found = [] if program == "console" else crates()
    if program == "console" or (program == "conversation-server" and (PAGES / "index.html").exists()):
        found += packages()
    for name, its_version, kind, licence, digest in found:
        component = Component(
            name=name,
            version=its_version,
            type=ComponentType.LIBRARY,
            purl=PackageURL(kind, name=name, version=its_version),
            licenses=[LicenseExpression(licence)] if licence else None,
            hashes=[digest] if digest else None,
            bom_ref=f"{kind}:{name}@{its_version}",
        )
        bom.components.add(component)
    bom.register_dependency(root, bom.components)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    # Of its own making; they would differ each time.
    document.pop("serialNumber", None)
    document.get("metadata", {}).pop("timestamp", None)
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def crates() -> list[tuple]:
    """What is compiled in for the target: neither for tests nor for other systems."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TRIPLE]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    by_id = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    lock = tomllib.loads(Path("Cargo.lock").read_text())["package"]
    digests = {(one["name"], one["version"]): one.get("checksum") for one in lock}
    seen, open_ = set(), [metadata["resolve"]["root"]]
    while open_:
        one = open_.pop()
        if one in seen:
            continue
        seen.add(one)
        for dependency in nodes[one]["deps"]:
            if any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"]):
                open_.append(dependency["pkg"])
    seen.discard(metadata["resolve"]["root"])
    found = []
    for package in (by_id[one] for one in seen):
        name, version = package["name"], package["version"]
        digest = digests.get((name, version))
        digest = HashType(alg=HashAlgorithm.SHA_256, content=digest) if digest else None
        licence = (package["license"] or "").replace("/", " OR ")
        found.append((name, version, "cargo", licence, digest))
    return sorted(found, key=lambda one: one[:2])


def packages() -> list[tuple]:
    """What the console's build may put into it, from its lock file."""
    lock = json.loads(Path("web/package-lock.json").read_text())["packages"]
    found = []
    for path, one in lock.items():
        if path and not one.get("dev") and not one.get("link"):
            found.append((path.rpartition("node_modules/")[2], one["version"], "npm", one.get("license"), None))
    return sorted(set(found), key=lambda one: one[:2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
