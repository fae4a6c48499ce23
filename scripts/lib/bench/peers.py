"""What is measured beside ours, installed from PyPI into .local/tools/bench: no dependency of the project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import machine

from .measuring import say

HERE = Path(__file__).resolve().parent / "peers"
HOME = machine.TOOLS / "bench"


def install(name: str) -> Path | None:
    """Where the packages of peers/NAME.txt are; None, with the reason printed, if they cannot be installed."""
    wanted, home = (HERE / f"{name}.txt").read_text(), HOME / name
    mark = home / "installed"
    if mark.exists() and mark.read_text() == wanted:
        return home
    say(f"installing {name} and what it needs from PyPI into {home.relative_to(machine.ROOT)}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    # Not a virtual environment: Debian keeps what makes one in a package of its own.
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--root-user-action=ignore", "--disable-pip-version-check",
                           "--target", str(home), "-r", str(HERE / f"{name}.txt")], stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        say(f"{name} could not be installed; it is left out. pip's own message is above.")
        return None
    mark.write_text(wanted)
    return home


def environment(home: Path, secret: str, storage: str) -> dict[str, str]:
    """Of peers/webhooks.py. The stand-in for the queue looks at no signature, but one is sent."""
    queue = storage.rpartition("QueueEndpoint=")[2].rstrip(";")
    signature = "sv=2023-11-03&ss=bq&srt=sco&sp=rwdlacup&se=2030-01-01T00%3A00%3A00Z&spr=https,http&sig=c2lnbmF0dXJl"
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{home}:{HERE}", "WEBHOOK_SECRET_STRIPE": secret,
            "QUEUE_URL": f"{queue}/events/messages?messagettl=-1&{signature}"}  # fmt: skip


def size(home: Path) -> int:
    """Bytes of an installation."""
    return sum(file.stat().st_size for file in home.rglob("*") if file.is_file() and not file.is_symlink())
