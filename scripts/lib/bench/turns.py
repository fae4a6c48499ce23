"""What a turn costs, rung by rung, beside the bare provider and LiteLLM's proxy; and how many connections one process
holds. Measured by benches/turns; here is who starts it, and what is made of its results."""

import json
import os
import resource
from pathlib import Path

from . import peers, plots
from .measuring import Bench, Part, Spread, Unusable
from .report import Report, mebibytes, number

BARE = "bare provider (CPU its own)"
PEER = "LiteLLM proxy"
RUNGS = {"(a) store: false, key, limits": (140, 300), "(b) and metering": (180, 500)}


def run(bench: Bench) -> Report:
    report = Report(bench, "turns", "Turns")
    rungs = measure(bench, ["a", "b", "c", "far", "peer"])
    describe_rungs(report, rungs)
    describe_held(report, measure(bench, ["held"]))
    return report


def measure(bench: Bench, what: list[str]) -> list[dict]:
    """Runs benches/turns; gives the lines of its results."""
    services = bench.services
    results = bench.directory / "turns.jsonl"
    results.unlink(missing_ok=True)
    peer = peers.HOME / "litellm" if bench.short else peers.install("litellm")
    environment = {
        **os.environ,
        "COLLOQUY_BENCH_RESULTS": str(results),
        "COLLOQUY_BENCH_SERVER": str(bench.server),
        "COLLOQUY_BENCH_SERVER_CORE": str(bench.subject_core),
        "COLLOQUY_BENCH_DATABASE_URL": services.url("postgres", pooled=True),
        "COLLOQUY_BENCH_DATABASE_DIRECT_URL": services.url("postgres", pooled=False),
        "COLLOQUY_TEST_AZURITE": services.storage(),
    }
    # A short run takes what is there: to install it takes longer than all else.
    if peer and (peer / "installed").exists():
        environment["COLLOQUY_BENCH_PEER"] = str(peer)
    sizes = {"TURNS": (2000, 10), "SOCKETS": (10_000, 50), "STREAMS": (1000, 10), "HELD_SECONDS": (20, 2)}
    for name, (full, short) in sizes.items():
        environment.setdefault(f"COLLOQUY_BENCH_{name}", str(bench.some(full, short)))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    try:
        # As a part: it starts others, which must not outlive it.
        with Part("turns", [bench.program, "turns", *what], env=environment, shown=True) as part:
            code = part.child.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    if code != 0:
        raise Unusable("the turns could not be measured; the reason is above.")
    return [json.loads(line) for line in Path(results).read_text().splitlines()]


def describe_rungs(report: Report, lines: list[dict]) -> None:
    machine = next(line for line in lines if line["what"] == "machine")
    far = next((line for line in lines if line["what"] == "far"), None)
    rows = [line for line in lines if line["what"] == "rung"]
    report.text(f"The server runs alone on one core; the fake provider, the load, PostgreSQL with its syncs and PgBouncer in transaction mode share the others. A turn is a request of 1 KB "
                f"and an answer of so many pieces that the provider sends at once, each its own event; {machine['turns']:,} turns a line, an eighth of it for the peer and the far database. "
                f"Every answer is checked to its last piece. *Added* is the percentile less that of the bare provider's, asked by the same load without anything between.")  # fmt: skip
    report.table(["this machine", "p50", "p99", "p99.9"], [
        ["a commit that lasts, ms", *map(number, machine["commit_ms"])], ["a round trip to the database, ms", number(machine["round_trip_ms"]), "", ""],
        *([["the same by the proxy, for *far*, ms", number(far["round_trip_ms"]), "", ""]] if far else [])])  # fmt: skip
    if not any(row["rung"] == PEER for row in rows):
        report.text("LiteLLM's proxy is not among them: it is not installed here.")
    for at_once in sorted({row["at_once"] for row in rows}):
        report.heading(f"{at_once} at once")
        mine = [row for row in rows if row["at_once"] == at_once]
        ours = {row["turn"]: row["cpu_us"] for row in mine if row["rung"] in RUNGS and row["rung"].startswith("(a)")}
        table = []
        for row in mine:
            added = [whole - bare for whole, bare in zip(row["whole_ms"], row["bare_ms"])]
            first = [whole - bare for whole, bare in zip(row["first_ms"], row["bare_first_ms"])]
            ratio = row["cpu_us"] / ours[row["turn"]] if ours.get(row["turn"]) else 0
            table.append([row["rung"], row["turn"], f"**{ratio:.2f} ×**", number(row["cpu_us"]), number(row["per_second"]),
                          "" if row["rung"] == BARE else " / ".join(map(number, added)), "" if row["rung"] == BARE else " / ".join(map(number, first))])  # fmt: skip
        report.table(["", "turn", "CPU against (a)", "CPU µs a turn", "turns/s", "added ms, p50 / p99 / p99.9", "first piece, added ms"], table)
        streamed = {row["rung"]: Spread(row["cpu_us"], row["cpu_us"], row["cpu_us"]) for row in mine if row["turn"] == "stream, 50 at once"}
        report.plot(f"cpu-{at_once}", plots.bars(f"CPU µs of a streamed turn of 50 pieces, {at_once} at once", streamed), "CPU of a turn")
    report.heading("Against the bar")
    bars = []
    for rung, (cpu, added) in RUNGS.items():
        for row in rows:
            if row["rung"] == rung and row["turn"] == "JSON, 1 piece":
                late = (row["whole_ms"][1] - row["bare_ms"][1]) * 1e3
                bars.append([rung, row["at_once"], f"{number(row['cpu_us'])} of {cpu}: {verdict(row['cpu_us'], cpu)}",
                             f"{number(late)} of {added}: {verdict(late, added)}" if row["at_once"] == 1 else ""])  # fmt: skip
    report.table(["JSON turns", "at once", "CPU µs", "added p99, µs"], bars)
    report.data([{key: value for key, value in row.items() if key != "what"} for row in rows], "rungs")


def verdict(value: float, bar: float) -> str:
    return "met" if value <= bar else "**missed**"


def describe_held(report: Report, lines: list[dict]) -> None:
    report.heading("Connections in one process")
    of = lambda what: [line for line in lines if line["what"] == what]
    rows = []
    for line in of("sockets"):
        rows += [["server, empty", mebibytes(line["empty_bytes"]), ""],
                 [f"{line['count']:,} idle WebSockets, opened in {line['opened_s']:.1f} s, idle at {line['idle_cpu_share']:.1%} of a core", f"{line['each_kib']:.1f} KiB each", "12 KiB: " + verdict(line["each_kib"], 12)]]  # fmt: skip
    for line in of("watching"):
        rows.append([f"{line['count']:,} idle streams that watch one turn", f"{line['each_kib']:.1f} KiB each", "32 KiB: " + verdict(line["each_kib"], 32)])
    for line in of("silent"):
        rows.append([f"{line['count']:,} idle streams, each with a turn and a call to the provider, `store: {str(line['store']).lower()}`", f"{line['each_kib']:.1f} KiB each", ""])
    report.table(["", "memory", "the bar"], rows)
    report.table(
        ["streams at 20 pieces/s, beside the WebSockets", "pieces/s", "CPU", "CPU µs a piece", "KiB each", "gap ms, p50 / p99 / p99.9", "later than 10 × the pace", "pieces that came"],
        [[f"{line['count']:,}, `store: {str(line['store']).lower()}`", number(line["per_second"]), f"{line['cpu_share']:.0%} of a core", number(line["piece_us"]), number(line["each_kib"]),
          " / ".join(map(number, line["gap_ms"])), line["late"], f"{line['pieces']:,} of {line['wanted']:,}"] for line in of("paced")])  # fmt: skip
    report.data(lines, "held")
