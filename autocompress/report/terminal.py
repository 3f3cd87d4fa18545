"""Terminal output of a run: progress while it works, stage table and verdict at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.status import Status as Spinner
from rich.table import Table
from rich.text import Text

from autocompress.core.objective import OBJECTIVES
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.verdict import Standing, Status, Verdict
from autocompress.errors import UsageError
from autocompress.report.frame import FrontRow, front_rows, trials_frame
from autocompress.report.sensitivity import in_one_sentence
from autocompress.report.wording import STAGE_HEADINGS, duration, front_cells, front_headings, stage_cells
from autocompress.run.result import SCHEMA, Result, StageRow
from autocompress.statistics.prediction_flips import PredictionFlips
from autocompress.system.progress import Event

COLOURS = {Standing.MET: "green", Standing.EXCEEDED: "red", Standing.UNDECIDED: "yellow", Standing.UNMEASURED: "yellow"}
FRONT_ROWS = 8
STATUS_COLOURS = {Status.MET: "bold green", Status.NOT_MET: "bold red", Status.UNDECIDED: "bold yellow"}


class TerminalProgress:
    """Shows progress as a live line on a terminal, or as plain lines in a file or CI log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._spinner: Spinner | None = None

    def __enter__(self) -> TerminalProgress:
        if self._console.is_terminal:
            self._spinner = self._console.status("starting")
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        clock = duration(time.monotonic() - self._started)
        parts = [f"{clock:>8}  {event.stage:<8}  {event.sentence}"]
        if event.total is not None and event.done is not None:
            parts.append(f"plan {event.done + 1} of at most {event.total}")
        if event.best:
            parts.append(f"best so far {event.best}")
        if event.seconds_left is not None:
            parts.append(f"at most {duration(event.seconds_left)} left")
        line = escape(", ".join(parts))
        if self._spinner is not None:
            self._spinner.update(line)
        else:
            self._console.print(line, highlight=False, soft_wrap=True)


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print a line per budget."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in verdict.findings:
        colour = COLOURS[finding.standing]
        table.add_row(f"[{colour}]{finding.standing}[/{colour}]", finding.name, Text(finding.sentence, overflow="fold"))
    console.print(Padding(table, (0, 0, 0, 2)))


def print_result(console: Console, summary: Summary) -> None:
    """Print the stage table, the verdict and where the files are."""
    console.print()
    # one space between columns: ten of them have to fit 80 characters, and the plan's name has a line of its own
    table = Table(*STAGE_HEADINGS, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    between = summary.stages[1:-1]
    names = ["baseline", *(f"step {place}" for place in range(1, len(between) + 1)), "answer"]
    for name, row in zip(names, summary.stages, strict=False):
        table.add_row(name, *stage_cells(row, rate=summary.score_is_rate)[1:])
    console.print(table)
    for place, row in enumerate(between, start=1):
        console.print(Padding(Text(f"step {place}: {row.name}"), (0, 0, 0, 2)))
    console.print()
    if len(summary.front) > 1 and not summary.first_answer_ends:
        _print_front(console, summary)
    status = Status(summary.status)
    console.print(f"[{STATUS_COLOURS[status]}]{status}[/]: {escape(summary.plan)}", soft_wrap=True)
    print_verdict(console, summary.verdict)
    if summary.prediction_flips:
        console.print(Padding(Text(f"answers: {summary.prediction_flips}"), (0, 0, 0, 2)))
    for sensitivity in summary.sensitivities:
        console.print(Padding(Text(in_one_sentence(sensitivity)), (0, 0, 0, 2)))
    for sentence in summary.explanation:
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    files = ", ".join(
        name
        for name in (summary.file, f"{summary.file}.acz", "plan.yaml", "report.html")
        if (summary.folder / name).exists()
    )
    console.print(f"  {escape(str(summary.folder))}/: {files}; took {duration(summary.seconds)}", soft_wrap=True)


def _print_front(console: Console, summary: Summary) -> None:
    """Print the candidates on the Pareto front."""
    rate = summary.score_is_rate
    table = Table(
        *front_headings(rate=rate), "Pareto front", box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold"
    )
    for column in table.columns[:-1]:
        column.justify, column.no_wrap = "right", True
    table.columns[-1].overflow = "fold"
    for row in summary.front[:FRONT_ROWS]:
        table.add_row(*front_cells(row, rate=rate), escape(row.name))
    console.print(table)
    if len(summary.front) > FRONT_ROWS:
        console.print(f"and {len(summary.front) - FRONT_ROWS} more, in trials.csv and report.html")
    console.print()


@dataclass(frozen=True)
class Summary:
    """The printed part of a result, fresh or read back from its folder."""

    status: str
    plan: str
    stages: Sequence[StageRow]
    verdict: Verdict
    explanation: Sequence[str]
    folder: Path
    seconds: float
    score_is_rate: bool
    first_answer_ends: bool
    file: str
    front: Sequence[FrontRow]
    prediction_flips: str
    sensitivities: Sequence[Sensitivity] = ()

    @staticmethod
    def of(result: Result) -> Summary:
        """The summary of a fresh result."""
        return Summary(
            result.status,
            result.plan_name,
            result.stages,
            result.verdict,
            result.explanation,
            result.folder,
            result.seconds,
            result.score_is_rate,
            result.profile.objective.first_answer_ends,
            result.baseline.entry,
            front_rows(trials_frame(result.history, result.names), result.baseline.entry),
            str(result.prediction_flips or ""),
            result.sensitivities,
        )

    @staticmethod
    def read(folder: Path) -> Summary:
        """The summary of the result that a run left in `folder`.

        Raises:
            UsageError: when there is none, or it is not of this version's schema.
        """
        path = folder / "result.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["schema"] != SCHEMA:
                raise UsageError(f"has schema {data['schema']}, this version reads {SCHEMA}.", where=str(path))
            return Summary(
                Status(data["status"]),
                data["plan_name"],
                [StageRow(**row) for row in data["stages"]],
                Verdict.from_json(data["verdict"]),
                data["explanation"],
                folder,
                data["seconds"],
                data["score_is_rate"],
                OBJECTIVES[data["objective"]].first_answer_ends,
                data["artifact"]["file"],
                _stored_front(folder / "trials.csv", data["artifact"]["file"]),
                str(PredictionFlips(**data["prediction_flips"])) if data["prediction_flips"] else "",
                [Sensitivity.from_json(one) for one in data.get("sensitivities", ())],
            )
        except OSError as error:
            raise UsageError(
                f"cannot be read ({error.strerror}).", where=str(path), hint="Give the folder of a finished run."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"is not a result ({type(error).__name__}: {error}).", where=str(path)) from None


def _stored_front(path: Path, file: str) -> list[FrontRow]:
    """The front in a run's trials.csv; empty where there is none, or an earlier version wrote it."""
    if not path.is_file():
        return []
    frame = pd.read_csv(path)
    return front_rows(frame, file) if "pareto" in frame and len(frame) else []
