"""Writes the report files that `autocompress check` was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autocompress.report.gate import checks_json
from autocompress.report.junit import junit
from autocompress.report.markdown import markdown
from autocompress.run.gate import Check
from autocompress.system.workspace import append_text, write_json, write_text


def write_reports(
    checks: Sequence[Check],
    json_file: Path | None,
    junit_file: Path | None,
    markdown_file: Path | None,
    summary: str | None,
) -> None:
    """Write the files that were asked for.

    The markdown is also added to the job summary of a CI that has one.

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
