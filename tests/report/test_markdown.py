from __future__ import annotations

from pathlib import Path

from graded_checks import check_of, graded, model_in
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.budget import GateRule
from autocompress.core.verdict import Standing
from autocompress.report.markdown import markdown


def test_markdown_has_a_row_for_each_budget_and_marks_what_failed() -> None:
    lenient = GateRule(severity="warn")
    ones = graded(), graded(Standing.EXCEEDED, lenient), graded(Standing.EXCEEDED, why="largest tensors: a")
    said = markdown([check_of(model_in(Path("/tmp")), *ones)])
    assert said.startswith("### ❌ autocompress: model.onnx, profile local\n")
    assert [line.split("|")[1].strip() for line in said.splitlines() if " size_mb | " in line] == ["✅", "⚠️", "❌"]
    assert "- largest tensors: a" in said.splitlines()
    assert markdown([check_of(model_in(Path("/tmp")), *ones[:2])]).startswith("### ✅ ")


@given(st.text(max_size=80))
def test_any_words_of_a_user_are_one_cell_of_markdown(words: str) -> None:
    broken = graded(Standing.EXCEEDED, GateRule(message=words))
    check = check_of(model_in(Path("/tmp")), broken, profile=words or "x")
    table = [line for line in markdown([check]).splitlines() if line.startswith("| ")]
    assert all(line.replace("\\\\", "").replace("\\|", "").count("|") == 8 for line in table)
    assert "<" not in markdown([check])
