"""What `autocompress check` leaves: a table in the terminal, JUnit XML, markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autocompress.report.wording import bound_text
from autocompress.run.gate import SCHEMA, Check, Grade, Graded, margin, worst
from autocompress.system.workspace import append_text, write_json, write_text

COLOURS = {Grade.PASSED: "green", Grade.WARNING: "yellow", Grade.FAILED: "red"}
MARKS = {Grade.PASSED: "✅", Grade.WARNING: "⚠️", Grade.FAILED: "❌"}
HEADINGS = ("budget", "limit", "value", "interval", "margin", "verdict")


def print_checks(console: Console, checks: Sequence[Check]) -> None:
    """A table per profile, with the reason of every broken budget."""
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
    """Metric, limit, value, interval, margin and verdict of a finding; a dash is what was not measured."""
    finding = one.finding
    unit = "x" if finding.budget.relative else f" {finding.budget.unit}"
    left = margin(finding)
    interval = "-"
    if finding.low is not None or finding.high is not None:
        interval = (
            "exact" if finding.low == finding.high else f"{bound_text(finding.low)} to {bound_text(finding.high)}"
        )
    return (
        finding.budget.metric,
        f"{finding.budget.direction} {finding.budget.text}",
        "-" if finding.value is None else f"{bound_text(finding.value)}{unit}",
        interval,
        "-" if left is None else f"{left:+.0%}",
        str(finding.standing),
    )


def remarks(check: Check) -> list[str]:
    """What is worth a sentence: the user's own words, why a budget broke, what is open, the answers that turned."""
    said = []
    for one in check.graded:
        if one.grade is Grade.PASSED:
            continue
        said.append(f"{one.finding.budget.metric}: {one.finding.sentence}.")
        said += [text for text in (one.why, one.rule.message) if text]
    if check.prediction_flips is not None:
        said.append(f"answers: {check.prediction_flips}")
    return [*said, *check.notes]


def checks_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The content of the JSON file, by docs/check.schema.json."""
    return {"schema": SCHEMA, "exit_code": worst(checks), "checks": [check.to_json() for check in checks]}


def junit(checks: Sequence[Check]) -> str:
    """A JUnit XML file: a suite per profile, a case per budget; a warning is a case that passed, with its words."""
    root = ElementTree.Element("testsuites", name="autocompress")
    for check in checks:
        failed = sum(one.grade is Grade.FAILED for one in check.graded)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_plain(f"autocompress.{check.artifact.path.name}.{check.profile}"),
            tests=str(max(1, len(check.graded))),
            failures=str(failed if check.graded else 1),
            errors="0",
        )
        for one in check.graded:
            case = ElementTree.SubElement(
                suite, "testcase", name=_plain(str(one.finding.budget)), classname=_plain(check.profile)
            )
            words = _plain(". ".join(text for text in (one.finding.sentence, one.why, one.rule.message) if text))
            if one.grade is Grade.FAILED:
                ElementTree.SubElement(case, "failure", message=words, type=str(one.finding.standing))
            else:
                ElementTree.SubElement(case, "system-out").text = f"{one.grade}: {words}"
        if not check.graded:
            case = ElementTree.SubElement(suite, "testcase", name="budgets", classname=_plain(check.profile))
            ElementTree.SubElement(case, "failure", message="no budget was set", type="unmeasured")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def write_reports(
    checks: Sequence[Check],
    json_file: Path | None,
    junit_file: Path | None,
    markdown_file: Path | None,
    summary: str | None,
) -> None:
    """The files that were asked for; the markdown is added to the job summary of a CI that has one.

    Raises:
        UsageError: when one of them cannot be written.
    """
    if json_file:
        write_json(json_file, checks_json(checks))
    if junit_file:
        write_text(junit_file, junit(checks))
    if markdown_file:
        write_text(markdown_file, markdown(checks))
    if summary:
        append_text(Path(summary), markdown(checks))


def _plain(text: str) -> str:
    """XML 1.0 has no place for control characters, escaped or not."""
    return "".join(c if c in "\t\n" or (ord(c) >= 32 and c not in "￾￿") else "?" for c in text)


def markdown(checks: Sequence[Check]) -> str:
    """A table per profile, as GitHub shows it."""
    lines: list[str] = []
    for check in checks:
        mark = "✅" if check.exit_code == 0 else "❌"
        lines += [
            f"### {mark} autocompress: {_cell(check.artifact.path.name)}, profile {_cell(check.profile)}",
            "",
            "| | " + " | ".join(HEADINGS) + " |",
            "|---" * (len(HEADINGS) + 1) + "|",
        ]
        lines += [
            f"| {MARKS[one.grade]} | " + " | ".join(_cell(cell) for cell in cells(one)) + " |" for one in check.graded
        ]
        lines += ["", *(f"- {_cell(sentence)}" for sentence in remarks(check)), "", f"{_cell(check.machine)}", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that ends no cell, opens no tag and starts no line."""
    plain = " ".join(str(text).split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
