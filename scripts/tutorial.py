"""Walk docs/tutorial.md: run its commands in a fresh folder, and write what they print into it.

Every ```sh block is run, in order; a ```text block right after one holds what it prints ("first=9" shows that
many lines only). With --check the page is compared, not written. Dates are replaced by one fixed day.
A "model" block holds what Gaussian processes chose: another processor rounds otherwise, and may choose
otherwise. --check asks of such a block that its commands succeed and print the same steps to take next.
"""

import argparse
import contextlib
import difflib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(
    r"```sh\n(?P<code>.*?)```\n(?:\n```text(?P<info>[^\n]*)\n(?P<shown>.*?)```\n)?", re.S
)
LOOP = re.compile(r"for (?P<name>\w+) in (?P<words>[^;\n]+); do\n(?P<body>.*?)\ndone\n", re.S)
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")


def expand(code: str) -> str:
    """Return a block with its loops written out."""
    return LOOP.sub(lambda m: f"{m['body']}\n" * len(m["words"].split()), code)


def run(code: str) -> str:
    """Return what a block prints, stdout and stderr as a terminal shows them.

    Raises:
        RuntimeError: If a command fails.
    """
    lines = expand(code).splitlines()
    if not all(line.split()[0] in ("ohmloop", "cd") for line in lines):
        done = subprocess.run(["bash", "-ec", code], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{code}failed:\n{done.stderr}")
        return done.stdout + done.stderr
    return "".join(command(shlex.split(line)) for line in lines)


def command(words: list[str]) -> str:
    """Run one command in this process: starting ohmloop anew each time would load torch each time."""
    from ohmloop.cli import main

    if words[0] == "cd":
        os.chdir(words[1])
        return ""
    out = io.StringIO()
    sys.argv = words
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main()
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"{shlex.join(words)} failed:\n{out.getvalue()}") from stop
    return out.getvalue()


def same_steps(printed: str, shown: str) -> bool:
    """Whether two outputs tell a person the same next steps, numbers of trials aside."""
    steps = [
        [re.sub(r"T\d+", "T", line) for line in text.splitlines() if line.startswith("Next:")]
        for text in (printed, shown)
    ]
    return steps[0] == steps[1] and bool(printed.strip()) == bool(shown.strip())


def walked(text: str, *, check: bool) -> str:
    """Return the page with the output of its commands as it is now.

    With ``check`` a "model" block that tells the same steps stays as it is.
    """

    def renewed(match: re.Match[str]) -> str:
        printed = STAMP.sub("2026-05-04 09:30", run(match["code"]))
        block = f"```sh\n{match['code']}```\n"
        if match["info"] is None:
            return block
        if check and "model" in match["info"] and same_steps(printed, match["shown"]):
            return match[0]
        lines = printed.splitlines()
        if first := re.search(r"first=(\d+)", match["info"]):
            lines = [*lines[: int(first[1])], "..."] if len(lines) > int(first[1]) else lines
        shown = "".join(f"{line}\n" for line in lines)
        return f"{block}\n```text{match['info']}\n{shown}```\n"

    return BLOCK.sub(renewed, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is true")
    check = parser.parse_args().check
    os.environ.update(LOGNAME="ada", COLUMNS="100")
    before = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        after = walked(before, check=check)
        os.chdir("/")
    if not check:
        PAGE.write_text(after, encoding="utf-8")
    elif before != after:
        diff = difflib.unified_diff(
            before.splitlines(), after.splitlines(), "page", "now", lineterm=""
        )
        sys.exit(
            "docs/tutorial.md is stale: run .venv/bin/python scripts/tutorial.py\n"
            + "\n".join(diff)
        )
