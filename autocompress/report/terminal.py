"""What a run prints: progress while it works, ladder, stage table and verdict at the end."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.status import Status as Spinner
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from autocompress.ladder import Ladder
from autocompress.progress import Event
from autocompress.report.wording import STAGE_HEADINGS, duration, stage_cells
from autocompress.result import Result
from autocompress.verdict import Standing, Status, Verdict

COLOURS = {Standing.MET: "green", Standing.EXCEEDED: "red", Standing.UNDECIDED: "yellow", Standing.UNMEASURED: "yellow"}
STATUS_COLOURS = {Status.MET: "bold green", Status.NOT_MET: "bold red", Status.UNDECIDED: "bold yellow"}


class TerminalProgress:
    """A live line on a terminal; one plain line per step where the output is a file or a CI log."""

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


def print_ladder(console: Console, ladder: Ladder, *, path: bool) -> None:
    """The rungs and refusals as a tree; `path` adds the questions of the decision tree."""
    if path:
        tree = Tree("[bold]Decision tree[/bold]")
        for answer in ladder.path:
            mark = "[green]yes[/green]" if answer.taken else "[dim]no[/dim]"
            branch = tree.add(f"{escape(answer.question)} {mark}  [dim]{escape(answer.found)}[/dim]")
            if answer.taken:
                branch.add(escape(answer.sentence))
        console.print(tree)
    tree = Tree("[bold]Ladder, cheapest effort first[/bold]")
    for number, rung in enumerate(ladder.rungs, start=1):
        plans = sum(1 for _ in rung.plans())
        branch = tree.add(
            f"{number}. [bold]{rung.name}[/bold]  effort {rung.effort.name.lower()}, {plans} plans, "
            f"size about {_share(rung.predicted_size)}, latency about {_share(rung.predicted_latency)}"
        )
        branch.add(Text(f"{rung.reason.sentence} {rung.reason.fact}".strip(), style="dim"))
    if not ladder.rungs:
        tree.add("nothing to try")
    for name, reason in ladder.refusals.items():
        fact = f" ({reason.fact})" if reason.fact else ""
        tree.add(f"[red]refused[/red] {name}: {escape(reason.sentence)}[dim]{escape(fact)}[/dim]")
    console.print(tree)
    for warning in ladder.warnings:
        console.print(f"[yellow]note[/yellow] {escape(warning)}", soft_wrap=True)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}x"


def print_verdict(console: Console, verdict: Verdict) -> None:
    """A line per budget."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in verdict.findings:
        colour = COLOURS[finding.standing]
        table.add_row(
            f"[{colour}]{finding.standing}[/{colour}]", finding.budget.metric, Text(finding.sentence, overflow="fold")
        )
    console.print(Padding(table, (0, 0, 0, 2)))


def print_result(console: Console, result: Result) -> None:
    """Stage table, verdict and where the files are."""
    console.print()
    rate = all(finding.budget.metric != "max_score_drop" for finding in result.verdict.findings)
    table = Table(*STAGE_HEADINGS, box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result.stages:
        table.add_row(*stage_cells(row, rate=rate))
    console.print(table)
    console.print()
    console.print(f"[{STATUS_COLOURS[result.status]}]{result.status}[/]: {escape(str(result.plan))}", soft_wrap=True)
    print_verdict(console, result.verdict)
    for sentence in result.explanation:
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    console.print(f"  {result.folder}/: model.onnx, report.html and the evidence, after {duration(result.seconds)}")
