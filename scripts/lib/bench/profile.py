"""Where the processor time of a delivery and of a streamed turn goes, as flame graphs. Needs perf, and a kernel that lets
it sample."""

import re
import shutil
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack
from html import escape

import processes

from . import growth, plots
from .intake import BODY_BYTES, CONNECTIONS, OURS
from .measuring import Bench, Part, say, storage_at, stripe_event
from .report import Report

RATE = 499
PIECES = 50


def run(bench: Bench) -> Report:
    report = Report(bench, "profile", "Where the time goes")
    seconds = bench.some(20, 1)
    report.text(f"`perf` samples the process {RATE} times a second of processor time, for {seconds} s under load. Wide is what takes long; what stands on a frame was called by it. "
                "Frames narrower than a pixel are left out. Open a picture by itself to read whole names.")  # fmt: skip
    for name, what, sample in (("intake", f"A delivery ({OURS})", delivery), ("turn", f"A stored, streamed turn of {PIECES} pieces (conversation-server)", streamed_turn)):
        report.heading(what)
        stacks, problem = sample(bench, seconds)
        if problem:
            say(f"profile: {problem}")
            report.text(f"Not sampled here: {problem}")
            continue
        samples = sum(stacks.values())
        itself = Counter()
        for stack, count in stacks.items():
            itself[stack[-1]] += count
        report.plot(name, flame(f"{what}: {samples:,} samples", stacks), what)
        report.text(f"In the function itself, of {samples:,} samples:")
        report.table(["share", "function"], [[f"{count / samples:.1%}", f"`{function}`"] for function, count in itself.most_common(20)])
    return report


def delivery(bench: Bench, seconds: float) -> tuple[Counter, str]:
    with ExitStack() as stack:
        environment = bench.environment(storage_at(bench.stand_in("queue", stack)), None, "")
        port = processes.free_ports(1)[0]
        part = stack.enter_context(Part(OURS, [bench.handlers], bench.subject_core, env=environment | {"FUNCTIONS_CUSTOMHANDLER_PORT": str(port)}, cwd=bench.app(), log=bench.directory / "profile.log"))
        part.until_answers(port, "/api/health/live")
        body = bench.directory / "event.json"
        body.write_text(stripe_event(BODY_BYTES))
        load = lambda: bench.load(f"http://127.0.0.1:{port}/api/webhooks/stripe", seconds=seconds + 1, connections=CONNECTIONS, body=body, stripe=bench.secret("stripe"))
        return sampled(bench, part, load, seconds)


def streamed_turn(bench: Bench, seconds: float) -> tuple[Counter, str]:
    with ExitStack() as stack:
        server = growth.Server(bench, stack, bench.database("profile"), pieces=PIECES)
        load = lambda: server.load("/v1/responses", growth.turn(stream=True), connections=CONNECTIONS, seconds=seconds + 1)
        return sampled(bench, server.parts[0], load, seconds)


def sampled(bench: Bench, part: Part, load, seconds: float) -> tuple[Counter, str]:
    """Stacks of a process while it is under load, outermost first; or why there are none."""
    if not shutil.which("perf"):
        return Counter(), "perf is missing (Debian: linux-perf)."
    data = bench.directory / "perf.data"
    thread = threading.Thread(target=load)
    thread.start()
    command = ["perf", "record", "-q", "-o", data, "-F", str(RATE), "--call-graph", "dwarf,16384", "-p", str(part.pid), "--", "sleep", str(seconds)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    thread.join()
    if done.returncode != 0:
        return Counter(), f"perf cannot sample here: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
    listed = subprocess.run(["perf", "script", "--no-inline", "-i", str(data), "-F", "ip,sym"], capture_output=True, text=True)
    data.unlink()
    stacks = folded(listed.stdout)
    return stacks, "" if stacks else "perf took no sample."


def folded(script: str) -> Counter:
    """How often each stack was seen. perf prints the innermost function first, and a blank line between stacks."""
    stacks: Counter = Counter()
    stack: list[str] = []
    for line in [*script.splitlines(), ""]:
        if line.strip():
            name = line.strip().partition(" ")[2] or "[unknown]"
            stack.append(re.sub(r"::h[0-9a-f]{16}|\+0x[0-9a-f]+", "", name))
        elif stack:
            stacks[tuple(reversed(stack))] += 1
            stack = []
    return stacks


def flame(title: str, stacks: Counter) -> str:
    width, step, top = 1200, 16, 34
    total = sum(stacks.values())
    frames: list[tuple[int, float, float, str, int]] = []

    def lay(rest: list[tuple[tuple[str, ...], int]], depth: int, left: float) -> int:
        """Frames of one depth beside each other, in the order of their names, each above its caller. Gives the depth reached."""
        deepest, groups = depth, {}
        for stack, count in rest:
            if len(stack) > depth:
                groups.setdefault(stack[depth], []).append((stack, count))
        for name, group in sorted(groups.items()):
            count = sum(each for _, each in group)
            wide = count / total * width
            if wide >= 1:
                frames.append((depth, left, wide, name, count))
                deepest = max(deepest, lay(group, depth + 1, left))
            left += wide
        return deepest

    height = top + (lay(list(stacks.items()), 0, 0.0) + 1) * step
    body = []
    for depth, left, wide, name, count in frames:
        y = height - (depth + 1) * step
        colour = f"hsl({20 + sum(name.encode()) % 35}, 85%, {62 + len(name) % 14}%)"
        fits = int(wide / 6.2)
        label = name if len(name) <= fits else name[: fits - 2] + "…" if fits > 6 else ""
        body.append(f'<g><title>{escape(name)}: {count / total:.1%}</title><rect x="{left:.1f}" y="{y}" width="{wide:.1f}" height="{step - 1}" fill="{colour}"/>'
                    f'<text x="{left + 2:.1f}" y="{y + 11}" font-family="monospace" font-size="10">{escape(label)}</text></g>')  # fmt: skip
    return plots.page(width, height, title, body)
