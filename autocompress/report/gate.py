"""Reports of `autocompress check`: a table in the terminal and the content of the JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autocompress.report.wording import bound_text
from autocompress.run.gate import SCHEMA, Check, Grade, Graded, margin, worst
from autocompress.statistics.accuracy import ASYMPTOTIC

COLOURS = {Grade.PASSED: "green", Grade.WARNING: "yellow", Grade.FAILED: "red"}
HEADINGS = ("budget", "limit", "value", "interval", "margin", "verdict")


def print_checks(console: Console, checks: Sequence[Check]) -> None:
    """Print a table per profile, with the reason of every broken budget."""
    for check in checks:
        console.print(
            f"{check.verdict.status}: {escape(str(check.artifact.path))}, profile {escape(check.profile)} on "
            f"{escape(check.machine)}",
            soft_wrap=True,
        )
        table = Table("", *HEADINGS, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for one in check.graded:
            colour = COLOURS[one.grade]
            table.add_row(f"[{colour}]{one.grade}[/{colour}]", *(Text(cell, overflow="fold") for cell in cells(one)))
        console.print(Padding(table, (0, 0, 0, 2)))
        for sentence in remarks(check):
            console.print(f"  {escape(sentence)}", soft_wrap=True)


def cells(one: Graded) -> tuple[str, ...]:
    """Metric, limit, value, interval, margin and verdict of a finding; a dash stands for not measured."""
    finding = one.finding
    unit = "x" if finding.budget.relative else f" {finding.budget.unit}"
    left = margin(finding)
    interval = "-"
    if finding.low is not None or finding.high is not None:
        interval = (
            "exact" if finding.low == finding.high else f"{bound_text(finding.low)} to {bound_text(finding.high)}"
        )
    return (
        finding.name,
        f"{finding.budget.direction} {finding.budget.text}",
        "-" if finding.value is None else f"{bound_text(finding.value)}{unit}",
        interval,
        "-" if left is None else f"{left:+.0%}",
        str(finding.standing),
    )


def remarks(check: Check) -> list[str]:
    """Sentences on budgets that did not pass, with causes and the user's messages, and prediction flips.

    Budgets that passed by an asymptotic bound are among them.
    """
    sentences = []
    for one in check.graded:
        if one.grade is Grade.PASSED and ASYMPTOTIC not in one.finding.sentence:
            continue
        sentences.append(f"{one.finding.name}: {one.finding.sentence}.")
        sentences += [text for text in (one.why, one.rule.message) if text]
    if check.prediction_flips is not None:
        sentences.append(f"answers: {check.prediction_flips}")
    return [*sentences, *check.notes]


def checks_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The content of the JSON file, as in docs/check.schema.json."""
    return {"schema": SCHEMA, "exit_code": worst(checks), "checks": [check.to_json() for check in checks]}
