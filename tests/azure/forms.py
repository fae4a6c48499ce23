"""Reads calls of az from stdin, one a line, and asks the parser of azure-cli about each form. Run by tests/azure/forms."""

import contextlib
import io
import shlex
import sys
import tempfile

from azure.cli.core import get_default_cli
from azure.cli.core.commands import AzCliCommandInvoker


class Parsed(BaseException):
    """The parser took it; what comes next would ask Azure."""


def stop(*_, **__):
    raise Parsed


def ignore(*_, **__):
    """Checks that look at a subscription."""


# Where a parsed command would be run, and before that be held against what Azure has.
AzCliCommandInvoker._run_jobs_serially = stop
AzCliCommandInvoker._run_jobs_concurrently = stop
AzCliCommandInvoker._validate_cmd_level = ignore
AzCliCommandInvoker._validate_arg_level = ignore


def refused(words: list[str]) -> str | None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = get_default_cli().invoke([*words, "--output", "json", "--only-show-errors"])
    except Parsed:
        return None
    except SystemExit as end:
        code = end.code
    return f"{code}: {said.getvalue().strip()[:300]}"


def main() -> int:
    forms, wrong = set(), 0
    with tempfile.NamedTemporaryFile() as file:
        for line in sys.stdin:
            words = shlex.split(line)[1:]
            # Files and moments that a dry run only names.
            words = [f"@{file.name}" if word.startswith("@<") else "2026-01-01T00:00:00Z" if word == "<SWAPPED>" else file.name if word in ("<state>", "<entry>", "<export>", "<key>") else word for word in words]
            form = (*(word for word in words if word.startswith("--")), *words[:4])
            if form in forms:
                continue
            forms.add(form)
            if told := refused(words):
                wrong += 1
                print(f"az {shlex.join(words)[:200]}\n  {told}")
    if not forms:
        print("no calls were given")
        return 1
    print(f"{len(forms)} forms of calls, {wrong} refused")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
