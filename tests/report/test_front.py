"""The front of the candidates that nothing beats: in the frame, the report, the terminal and the picture."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autocompress.core.measurement import Measurement, Reading
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.trial import Outcome, Trial
from autocompress.report.files import write_files
from autocompress.report.frame import front_rows, trials_frame, undominated
from autocompress.report.html import html_report
from autocompress.report.terminal import Summary, print_result
from autocompress.run.result import Result
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of

VARIANTS = {
    "quick": Variant(kilobytes=20, latency_ms=2.0, wrong_below=0.04),
    "small": Variant(kilobytes=5, latency_ms=5.0, wrong_below=0.03),
    "right": Variant(kilobytes=20, latency_ms=6.0),
    "beaten": Variant(kilobytes=22, latency_ms=6.5, wrong_below=0.04),
    "large": Variant(kilobytes=39, latency_ms=1.0),
}
BUDGETS = {"size_mb": "0.7x", "latency_ms": 7, "max_accuracy_drop_pp": 9.0}
# few values, so that ties are common
some = st.sampled_from([0.1, 0.2, 0.3, float("nan")])


def trial(number: int, *, size: float, latency: float, score: float, outcome: Outcome = Outcome.MEASURED) -> Trial:
    """A trial beside a baseline of 1 MB, 1 ms and a score of 1; NaN is not measured."""
    given_values = {"size_mb": ("MB", size), "latency_ms": ("ms", latency), "score": ("score", score)}
    taken = {name: Reading.one(unit, value) for name, (unit, value) in given_values.items() if not np.isnan(value)}
    baseline = {name: Reading.one(given_values[name][0], 1.0) for name in taken}
    plan = Plan(finish=(Step("made", Stage.PRECISION, {"number": number}),))
    return Trial(number, plan, outcome, Measurement(taken, baseline))


def beats(one: Trial, other: Trial, metrics: list[str]) -> bool:
    gains = []
    for metric in metrics:
        gain = other.measurement.readings[metric].value - one.measurement.readings[metric].value
        gains.append(-gain if metric == "score" else gain)
    return min(gains) >= 0 and max(gains) > 0


@given(st.lists(st.tuples(some, some, some), max_size=12))
def test_nothing_beats_the_front_and_something_beats_all_else_that_was_measured(
    values: list[tuple[float, float, float]],
) -> None:
    trials = [trial(i, size=size, latency=latency, score=score) for i, (size, latency, score) in enumerate(values)]
    metrics = ["size_mb", "latency_ms"]
    if any("score" in one.measurement.readings for one in trials) or not trials:
        metrics.append("score")
    whole = [one for one in trials if set(metrics) <= set(one.measurement.readings)]
    front = {int(number) for number in trials_frame(trials).query("pareto")["number"]}
    assert front <= {one.number for one in whole}
    for one in whole:
        assert (one.number in front) == (not any(beats(other, one, metrics) for other in whole))


def test_equals_stand_on_the_front_together() -> None:
    assert list(undominated(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]]))) == [True, True, False]


def test_without_data_the_front_is_one_of_size_and_latency() -> None:
    nothing = float("nan")
    trials = [trial(0, size=0.5, latency=0.5, score=nothing), trial(1, size=0.6, latency=0.6, score=nothing)]
    assert list(trials_frame(trials)["pareto"]) == [True, False]
    (row,) = front_rows(trials_frame(trials), "model.onnx")
    assert (row.number, row.score, row.score_drop) == (0, None, None)


def test_what_was_stopped_before_it_was_scored_stands_on_no_front() -> None:
    stopped = trial(0, size=0.1, latency=0.1, score=float("nan"), outcome=Outcome.STOPPED)
    assert list(trials_frame([stopped])["pareto"]) == [False]
    assert list(trials_frame([stopped, trial(1, size=0.5, latency=0.5, score=0.9)])["pareto"]) == [False, True]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A scripted run over all variants: `large` is stopped at its size, the others are measured whole."""
    folder = tmp_path_factory.mktemp("run")
    stand = Stand(
        folder, [Scripted("scripted", VARIANTS)], BUDGETS, task_of(ramp(300), ramp(1000)), objective="latency"
    )
    made = stand.result()
    write_files(made)
    return made


def printed(summary: Summary, columns: int = 80) -> str:
    stream = io.StringIO()
    print_result(Console(file=stream, width=columns), summary)
    return stream.getvalue()


def test_the_report_lists_the_front_quickest_first_with_the_files(result: Result) -> None:
    report = html_report(result)
    front = front_rows(trials_frame(result.history, result.names), result.baseline.entry)
    assert [row.plan for row in front] == [f"scripted(variant={name})" for name in ("quick", "small", "right")]
    assert [row.name for row in front] == ["scripted quick", "scripted small", "scripted right"]
    places = [report.index(row.file) for row in front]
    assert places == sorted(places)
    for row in front:
        assert (result.folder / row.file).is_file()


def test_the_picture_shows_both_panels_the_budgets_and_the_front(result: Result) -> None:
    report = html_report(result)
    for words in ("accuracy lost, percentage points", "size, share of the float baseline", "Pareto front", "budgets"):
        assert f"<!-- {words} -->" in report
    assert "data:image" not in report


def test_the_terminal_lists_the_front_unless_the_cheapest_plan_was_asked_for(result: Result) -> None:
    said = printed(Summary.of(result))
    assert "Pareto front" in said
    # no., latency, size, score, points lost, and the plan's name
    assert "  0   0.20x 0.51x  96.00%     4.00 scripted quick" in said
    # but for the line with the folder and the sentence with the plan's name, which the test cannot shorten
    long = [str(result.folder), *result.explanation]
    assert max(len(line) for line in said.splitlines() if not any(words in line for words in long)) <= 80
    again = printed(Summary.read(result.folder))
    assert again[: again.index("took")] == said[: said.index("took")]


def test_a_front_of_one_is_not_listed_in_the_terminal(tmp_path: Path) -> None:
    stand = Stand(tmp_path, [Scripted("scripted", {"quick": VARIANTS["quick"]})], BUDGETS, objective="latency")
    assert "Pareto front" not in printed(Summary.of(stand.result()))


def test_a_result_of_an_earlier_version_is_shown_without_a_front(result: Result, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes((result.folder / "result.json").read_bytes())
    (tmp_path / "trials.csv").write_text("number,plan\n0,something\n", encoding="utf-8")
    assert "Pareto front" not in printed(Summary.read(tmp_path))


def test_the_terminal_labels_the_stages_by_what_they_are_and_names_the_plan_in_the_verdict(result: Result) -> None:
    lines = printed(Summary.of(result)).splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("baseline ", "answer "))] == ["baseline", "answer"]
    assert "met: scripted quick" in lines
