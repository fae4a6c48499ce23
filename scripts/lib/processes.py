"""Starting processes that outlive this one, and finding and stopping them again.

Nobody keeps pid files here: a pid file is wrong exactly when it matters, after a `kill -9`. A process is recognised by
what it was started with (its command line names a path of ours) or by where it stands (PostgreSQL's children stand in
the data directory), as /proc shows it.
"""

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def matching(wanted: Callable[[list[str], str], bool]) -> list[int]:
    """Pids of all live processes for which `wanted(command line, working directory)` holds."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            continue
        try:
            directory = os.readlink(entry / "cwd")
        except OSError:
            directory = ""
        if wanted(arguments, directory):
            found.append(int(entry.name))
    return found


def setting(pid: int, name: str) -> str | None:
    """An environment variable of a process, as it was started with."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    return next((value for key, _, value in (text.partition("=") for text in variables) if key == name), None)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stop(pids: Iterable[int], gently: int = signal.SIGTERM, patience: float = 10.0) -> None:
    """Asks, waits, then kills. A stopped (SIGSTOP) process is woken, or it could not obey."""
    pids = [pid for pid in pids if alive(pid)]
    for number in (gently, signal.SIGCONT):
        for pid in pids:
            _signal(pid, number)
    if not until(lambda: not any(map(alive, pids)), patience):
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        until(lambda: not any(map(alive, pids)), 5.0)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def until(condition: Callable[[], bool], limit: float) -> bool:
    """Whether `condition` held within `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def daemon(command: list[str], log: Path, user: str | None = None, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts `command` in a session of its own (a Ctrl-C in the terminal does not reach it), writing to `log`."""
    extra = {}
    if user is not None:
        account = pwd.getpwnam(user)
        extra = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with open(log, "ab") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=cwd, env=env, **extra)


def free_ports(count: int) -> list[int]:
    """Distinct ports that were free a moment ago. All are held until all are known."""
    held = []
    try:
        for _ in range(count):
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            held.append(listener)
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()


def answers(port: int) -> bool:
    """Whether anything accepts connections on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(log: Path, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
