"""The verdicts of `autocompress check` as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.report.gate import HEADINGS, cells, remarks
from autocompress.run.gate import Check, Grade

MARKS = {Grade.PASSED: "✅", Grade.WARNING: "⚠️", Grade.FAILED: "❌"}


def markdown(checks: Sequence[Check]) -> str:
    """A table per profile, in GitHub's markdown."""
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
    """The text, escaped so that it ends no table cell, opens no tag and starts no line."""
    plain = " ".join(str(text).split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
