"""Mistakes of users, each run as the command line it is: the sentence, the exit code and the seconds.

    python benchmarks/user_mistakes.py          # writes docs/errors.md; about 15 minutes on an idle machine
    python benchmarks/user_mistakes.py Model    # prints the mistakes of one group

Every one has to end with exit code 2 and one line that holds the words of `mistakes/`, before the run's folder is
made, and within 20 seconds of the processor's time: what it takes where nobody else is at work.
"""

from __future__ import annotations

import datetime
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mistakes import MISTAKES, Mistake

from autocompress.core.profile import load_profile
from autocompress.devices import device_of
from autocompress.runtimes import runtime_of

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
LONGEST = 20.0
INTRODUCTION = """\
# What the errors mean

Bad input ends with exit code 2 and one line: where, what, what to do. It comes before anything is trained and before
the run's folder is made or changed. A line about your own code names it: `mine.py, line 43`. `--debug` shows the
traceback. What a message means beyond its words is in [data and models](data-and-models.md#errors).

These are the lines for mistakes as people make them, printed by `python benchmarks/user_mistakes.py`, which runs each
as a command of its own.
"""


@dataclass(frozen=True)
class Ended:
    """How a command with a mistake ended."""

    code: int
    line: str
    seconds: float
    cpu_seconds: float
    problem: str


def run(mistake: Mistake) -> Ended:
    """Run the command line in a fresh folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mistake.write(folder)
        before = files_in(folder)
        begun, used = time.monotonic(), _cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "autocompress.cli", *mistake.words],
            cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "240"},
        )  # fmt: skip
        seconds, cpu = time.monotonic() - begun, _cpu_seconds() - used
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        line = lines[-1].removeprefix("error ").replace(name, "/your/folder") if lines else ""
        missing = [words for words in (*mistake.says, mistake.place) if words not in line]
        problems = [f"lacks {words!r}" for words in missing]
        if done.returncode != 2:
            problems.append(f"ends with {done.returncode}")
        # what a script of the user's prints itself is the user's
        if len([one for one in lines if one.startswith("error ")]) != 1 or "Traceback" in done.stderr:
            problems.append("is not one line")
        if files_in(folder) != before:
            problems.append("writes files")
        if cpu > LONGEST:
            problems.append(f"takes {cpu:.0f} s")
        return Ended(done.returncode, line, seconds, cpu, ", ".join(problems))


def _cpu_seconds() -> float:
    """Seconds that the commands so far kept a processor busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def files_in(folder: Path) -> list[str]:
    """Names of all files but Python's caches."""
    return sorted(str(path) for path in folder.rglob("*") if "__pycache__" not in path.parts)


def table(group: str, ended: list[tuple[Mistake, Ended]]) -> str:
    """A part of the page: the mistakes of a group with their lines."""
    rows = "\n".join(
        f"| {mistake.what} | `{one.line.replace('|', chr(92) + '|').replace('`', chr(39))}` | {one.cpu_seconds:.1f} |"
        for mistake, one in ended
    )
    return f"\n## {group}\n\n| mistake | error | CPU s |\n|---|---|---|\n{rows}\n"


def measured(ended: list[Ended], load: tuple[float, float]) -> str:
    """A sentence on how this was measured."""
    cpu = sorted(one.cpu_seconds for one in ended)
    profile = load_profile("local")
    machine = device_of(profile, runtime_of(profile)).machine()
    return (
        f"\n{len(ended)} mistakes, all with exit code 2, in {cpu[len(cpu) // 2]:.1f} s of processor time each (median) "
        f"and {cpu[-1]:.1f} s at most, start of Python included; with others at work up to "
        f"{max(one.seconds for one in ended):.0f} s by the clock. {machine}, load {load[0]:.0f} at the beginning and "
        f"{load[1]:.0f} at the end, {datetime.date.today()}.\n"
    )


def main(groups: list[str]) -> int:
    """Run the mistakes of these groups, or all and write the page; 1 when one of them ends otherwise."""
    page, said, every, load = "", "", [], os.getloadavg()[0]
    for group, mistakes in MISTAKES.items():
        if groups and group not in groups:
            continue
        ended = []
        for mistake in mistakes:
            one = run(mistake)
            ended.append((mistake, one))
            print(f"{one.seconds:5.1f} s ({one.cpu_seconds:.1f})  {mistake.what}: {one.line}", flush=True)
            if one.problem:
                print(f"         !! {one.problem}", flush=True)
        page += table(group, ended)
        every += [one for _, one in ended]
        said = measured(every, (load, os.getloadavg()[0]))
        if not groups:
            PAGE.write_text(INTRODUCTION + said + page, encoding="utf-8")
    failed = [one for one in every if one.problem]
    print(said, f"{len(failed)} end otherwise.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
