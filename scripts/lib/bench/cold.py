"""How long a new process takes to its first answer, how large its program is, and what memory it takes: new, and after
100,000 deliveries. Beside uvicorn with the same routes."""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import processes

from . import peers, plots
from .intake import BODY_BYTES, CONNECTIONS
from .measuring import Bench, Part, Spread, say, storage_at, stripe_event
from .report import Report, mebibytes, spread


@dataclass
class Subject:
    """Something that is started over and over."""

    name: str
    command: list
    environment: dict[str, str]
    cwd: Path
    # What the port is told by: a variable, or an argument at the end.
    port_variable: str | None
    size: int


def run(bench: Bench) -> Report:
    report = Report(bench, "cold", "A new process")
    starts, requests = bench.some(21, 2), bench.some(100_000, 300)
    with ExitStack() as stack:
        storage = storage_at(bench.stand_in("queue", stack))
        rows = []
        subjects = those(bench, storage)
        for nth in range(-1, starts):
            for subject in subjects:
                with start(bench, subject) as (part, port):
                    took = part.until_answers(port, "/api/health/live") * 1e3
                # The first brings files into the page cache, and Python writes its compiled ones.
                if nth >= 0:
                    rows.append({"subject": subject.name, "start": nth, "first_answer_ms": took})
        say("starts are done")
        memory = [remembered(bench, subject, requests) for subject in subjects]
    of = lambda name: Spread.of(row["first_answer_ms"] for row in rows if row["subject"] == name)
    ours = of(subjects[0].name).median
    report.text(f"From before `exec` to the last byte of the first answer to an invocation (`GET /api/health/live`); {starts} starts each, taking turns; files in the page cache. "
                f"Then {requests:,} signed deliveries of {BODY_BYTES} bytes over {CONNECTIONS} connections, put on a stand-in for the queue. The subject has a core of its own.")  # fmt: skip
    report.table(
        ["subject", "start against ours", "first answer, ms", "resident, new", f"after {requests:,} deliveries", "15 s later", "on disk"],
        [[subject.name, f"**{of(subject.name).median / ours:.1f} ×**", spread(of(subject.name)), mebibytes(held["new"]), mebibytes(held["after"]), mebibytes(held["later"]), mebibytes(subject.size)]
         for subject, held in zip(subjects, memory)])  # fmt: skip
    report.text("On disk: the program; of the peer, its packages without the interpreter. The handler runs alone here, without a host, so without the timer by which it gives memory back; "
                "`scripts/measure` holds it, under its host, to its bounds.")  # fmt: skip
    report.plot("start", plots.bars("ms to the first answer (median; line: lowest to highest)", {subject.name: of(subject.name) for subject in subjects}), "Time to the first answer")
    report.data(rows, "starts")
    report.data(memory, "memory")
    return report


def those(bench: Bench, storage: str) -> list[Subject]:
    app = bench.app()
    environment = bench.environment(storage, None, "")
    subjects = [Subject("function-handlers", [bench.handlers], environment, app, "FUNCTIONS_CUSTOMHANDLER_PORT", bench.handlers.stat().st_size)]
    if home := peers.install("fastapi"):
        env = peers.environment(home, bench.secret("stripe"), storage)
        command = [sys.executable, "-m", "uvicorn", "webhooks:app", "--log-level", "warning", "--port"]
        subjects.append(Subject("FastAPI, uvicorn", command, env, bench.directory, None, peers.size(home)))
    return subjects


class start:
    """A subject, started on a port of its own, until the `with` ends."""

    def __init__(self, bench: Bench, subject: Subject):
        self.port = processes.free_ports(1)[0]
        environment, command = subject.environment, subject.command
        if subject.port_variable:
            environment = environment | {subject.port_variable: str(self.port)}
        else:
            command = [*command, str(self.port)]
        self.part = Part(subject.name, command, bench.subject_core, env=environment, cwd=subject.cwd, log=bench.directory / "cold.log")

    def __enter__(self) -> tuple[Part, int]:
        return self.part, self.port

    def __exit__(self, *_) -> None:
        self.part.kill()


def remembered(bench: Bench, subject: Subject, requests: int) -> dict:
    """Resident memory when new, at the end of so many deliveries, and a while later."""
    body = bench.directory / "event.json"
    body.write_text(stripe_event(BODY_BYTES))
    with start(bench, subject) as (part, port):
        part.until_answers(port, "/api/health/live")
        time.sleep(bench.some(2, 0.2))
        new = part.resident()
        url = f"http://127.0.0.1:{port}/api/webhooks/stripe"
        bench.load(url, requests=requests, connections=CONNECTIONS, body=body, stripe=bench.secret("stripe"), strict=True)
        after = part.resident()
        time.sleep(bench.some(15, 0.5))
        return {"subject": subject.name, "new": new, "after": after, "later": part.resident()}
