from __future__ import annotations

import json
from pathlib import Path

import pytest
from graded_checks import STANDINGS, check_of, finding, graded, model_in
from rich.console import Console

from autocompress.core.artifact import Artifact
from autocompress.core.budget import GateRule
from autocompress.core.verdict import Standing
from autocompress.report.gate import checks_json, print_checks, remarks
from autocompress.run.gate import Grade, grade_of, margin, worst

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "check.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (tmp_path / "model.onnx").write_bytes(b"x")
    return model_in(tmp_path)


# what is said beside the tables


def test_a_budget_that_passed_by_an_asymptotic_bound_says_so(artifact: Artifact) -> None:
    plain = graded(metric="max_score_drop", sentence="0.5; mean over 300 items")
    asymptotic = graded(metric="max_score_drop", sentence="0.5; mean over 300 items; the bound is asymptotic")
    assert remarks(check_of(artifact, plain)) == []
    assert remarks(check_of(artifact, asymptotic)) == [f"max_score_drop: {asymptotic.finding.sentence}."]


# grades


@pytest.mark.parametrize("standing", STANDINGS)
def test_by_default_only_what_is_met_passes(standing: Standing) -> None:
    expected = Grade.PASSED if standing is Standing.MET else Grade.FAILED
    assert grade_of(finding(standing), GateRule()) is expected


@pytest.mark.parametrize(
    ("standing", "grade"),
    [
        (Standing.EXCEEDED, Grade.FAILED),
        (Standing.UNDECIDED, Grade.WARNING),
        # nothing was shown: that is no lack of items
        (Standing.UNMEASURED, Grade.FAILED),
    ],
)
def test_a_lenient_budget_forgives_what_is_undecided_alone(standing: Standing, grade: Grade) -> None:
    assert grade_of(finding(standing), GateRule(on_undecided="warn")) is grade


@pytest.mark.parametrize("standing", STANDINGS)
def test_a_warning_never_fails(standing: Standing) -> None:
    assert grade_of(finding(standing), GateRule(severity="warn")) is not Grade.FAILED


def test_the_code_of_a_check_is_that_of_its_worst_finding(artifact: Artifact) -> None:
    met, broken, undecided, unmeasured = (graded(standing) for standing in STANDINGS)
    assert check_of(artifact, met).exit_code == 0
    assert check_of(artifact, met, undecided).exit_code == 3
    assert check_of(artifact, met, unmeasured).exit_code == 3
    assert check_of(artifact, undecided, broken, met).exit_code == 1
    assert check_of(artifact).exit_code == 3
    assert worst([check_of(artifact, met), check_of(artifact, undecided), check_of(artifact, broken)]) == 1
    assert worst([check_of(artifact, met), check_of(artifact, undecided)]) == 3
    assert worst([]) == 3


@pytest.mark.parametrize(
    ("metric", "low", "high", "left"),
    [
        ("size_mb", 0.4, 0.6, 0.4),
        ("size_mb", 1.0, 1.5, -0.5),
        ("throughput_per_s", 1.5, 2.0, 0.5),
        ("size_mb", None, None, None),
    ],
)
def test_the_margin_is_what_the_bound_that_counts_leaves(
    metric: str, low: float | None, high: float | None, left: float | None
) -> None:
    found = margin(finding(metric=metric, low=low, high=high))
    assert found == (None if left is None else pytest.approx(left))


# what is written


def by_schema(value: object, schema: dict[str, object], where: str = "$") -> None:
    """The part of JSON Schema that the published one uses."""
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
        "boolean": bool,
    }
    if "const" in schema:
        assert value == schema["const"], where
    if "enum" in schema:
        assert value in schema["enum"], where  # type: ignore[operator]
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert isinstance(value, tuple(kinds[name] for name in names)), f"{where}: {value!r}"
    if isinstance(value, dict) and "properties" in schema:
        properties: dict[str, dict[str, object]] = schema["properties"]  # type: ignore[assignment]
        assert set(schema["required"]) <= set(value), where  # type: ignore[call-overload]
        assert set(value) <= set(properties), where
        for key, inner in value.items():
            by_schema(inner, properties[key], f"{where}.{key}")
    if isinstance(value, list) and "items" in schema:
        for i, inner in enumerate(value):
            by_schema(inner, schema["items"], f"{where}[{i}]")  # type: ignore[arg-type]


def test_the_json_keeps_to_the_published_schema(artifact: Artifact) -> None:
    checks = [check_of(artifact, *(graded(standing) for standing in STANDINGS)), check_of(artifact, profile="empty")]
    by_schema(json.loads(json.dumps(checks_json(checks), allow_nan=False)), SCHEMA)


def test_the_terminal_shows_a_line_for_each_budget_and_the_reason_of_a_broken_one(artifact: Artifact) -> None:
    console = Console(record=True, width=160)
    print_checks(console, [check_of(artifact, graded(), graded(Standing.EXCEEDED, why="slowest operators: Conv"))])
    said = console.export_text()
    assert "passed" in said
    assert "failed" in said
    assert "slowest operators: Conv" in said


def test_what_passes_needs_no_words(artifact: Artifact) -> None:
    assert remarks(check_of(artifact, graded())) == []
