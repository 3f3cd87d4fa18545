import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.core.measurement import Reading
from autocompress.core.plan import Plan
from autocompress.core.runtime import Contents
from autocompress.core.verdict import Standing, Status
from autocompress.errors import BudgetsNotMetError, UndecidedError
from autocompress.run.result import Result, stage_row
from autocompress.testing.fakes import FakeDevice, Scripted, Stand, Variant, ramp, task_of, variants

BUDGETS = {"size_mb": "0.7x", "latency_ms": "0.6x", "max_accuracy_drop_pp": 5.0}
TASK = task_of(ramp(300), ramp(600))
GOOD, LARGE, SLOW, WRONG = Variant(), Variant(kilobytes=36), Variant(latency_ms=8.0), Variant(wrong_below=0.3)


def run(folder: Path, named: Mapping[str, Variant], **more: Any) -> Result:
    given = {"budgets": BUDGETS, "task": TASK, **more}
    return Stand(folder, [Scripted("scripted", named)] if named else [], **given).result()


@pytest.fixture
def met(tmp_path: Path) -> Result:
    return run(tmp_path, {"slow": SLOW, "good": GOOD})


@pytest.fixture
def not_met(tmp_path: Path) -> Result:
    return run(tmp_path, {"slow": SLOW, "large": LARGE, "wrong": WRONG})


@pytest.fixture
def undecided(tmp_path: Path) -> Result:
    return run(tmp_path, {"good": GOOD}, task=None)


# the answer


def test_budgets_that_are_met_give_the_artifact(met: Result, tmp_path: Path) -> None:
    assert met.met
    assert met.status is Status.MET
    assert met.unwrap() is met.artifact
    assert met.unwrap().path == tmp_path / "model.onnx"
    assert met.unwrap().path.stat().st_size == met.unwrap().size_bytes
    assert met.binding is None
    assert variants([met.plan]) == ["good"]
    assert met.certificate is not None
    assert met.certificate["artifact_sha256"] == met.unwrap().hash


def test_budgets_that_are_not_met_are_an_error_of_exit_code_one(not_met: Result, tmp_path: Path) -> None:
    assert not not_met.met
    with pytest.raises(BudgetsNotMetError, match="the budgets are not met") as caught:
        not_met.unwrap()
    assert caught.value.exit_code == 1
    assert caught.value.where == str(tmp_path)
    assert not_met.binding is not None
    assert f"{not_met.binding.budget.metric}: {not_met.binding.sentence}" in caught.value.message


def test_budgets_that_are_undecided_are_an_error_of_exit_code_three(undecided: Result) -> None:
    with pytest.raises(UndecidedError, match="the budgets are undecided") as caught:
        undecided.unwrap()
    assert caught.value.exit_code == 3
    assert "max_accuracy_drop_pp: accuracy was not measured" in caught.value.message


@pytest.mark.parametrize(
    ("status", "error"), [(Status.NOT_MET, BudgetsNotMetError), (Status.UNDECIDED, UndecidedError)]
)
def test_no_artifact_is_given_for_any_status_but_met(met: Result, status: Status, error: type[Exception]) -> None:
    with pytest.raises(error):
        replace(met, status=status).unwrap()


def test_the_exit_code_of_an_error_is_that_of_the_status() -> None:
    assert BudgetsNotMetError.exit_code == Status.NOT_MET.exit_code
    assert UndecidedError.exit_code == Status.UNDECIDED.exit_code


def test_the_plan_of_the_answer_is_written_beside_its_file(met: Result, tmp_path: Path) -> None:
    assert Plan.read(tmp_path / "plan.yaml") == met.plan


def test_as_text_it_is_status_plan_and_a_line_per_budget(met: Result) -> None:
    lines = str(met).splitlines()
    assert lines[0] == "met: scripted good"
    assert [line.split(":")[0].strip() for line in lines[1:]] == list(BUDGETS)


def test_without_any_candidate_the_answer_is_the_model_as_it_is_and_not_met(tmp_path: Path) -> None:
    result = run(tmp_path, {})
    assert (result.status, result.plan) == (Status.NOT_MET, Plan())
    assert result.artifact is not None
    assert result.artifact.hash == result.baseline.hash
    assert result.certificate is None
    assert [stage.name for stage in result.stages] == ["baseline"]


def test_without_any_candidate_the_model_is_judged_at_the_profiles_batch(tmp_path: Path) -> None:
    result = run(tmp_path, {}, budgets={"throughput_per_s": 900.0}, batch=8)
    finding = result.verdict.of("throughput_per_s")
    assert finding is not None
    assert finding.value == 8 * 1000 / 10.0


def test_a_model_that_fits_is_its_own_answer(tmp_path: Path) -> None:
    result = run(tmp_path, {"good": GOOD}, budgets={"size_mb": "1x", "max_accuracy_drop_pp": 0.0})
    assert (result.status, result.plan) == (Status.MET, Plan())
    assert result.unwrap().hash == result.baseline.hash
    assert [stage.name for stage in result.stages] == ["baseline"]


def test_a_candidate_that_disappoints_when_confirmed_is_no_answer_where_another_is_met(tmp_path: Path) -> None:
    task = task_of(np.full(300, 0.9), ramp(600))
    result = run(tmp_path, {"disappoints": WRONG, "good": replace(GOOD, latency_ms=5.5)}, task=task)
    assert result.met
    assert variants([result.plan]) == ["good"]
    assert result.certificate is not None
    assert result.certificate["look"] == 2


def test_without_a_confirmation_nothing_is_met(tmp_path: Path) -> None:
    # nothing is measured of the model itself that a budget limits, and the time is up before the first plan
    made = Stand(tmp_path, [Scripted("scripted", {"good": GOOD})], {"max_accuracy_drop_pp": 5.0}, TASK)
    made.run.deadline = replace(made.run.deadline, max_seconds=1.0, spent_before=2.0)
    result = made.result()
    assert result.plan == Plan()
    assert [finding.standing for finding in result.verdict.findings] == [Standing.MET]
    assert result.status is Status.UNDECIDED


def test_a_file_that_cannot_run_is_no_answer(tmp_path: Path) -> None:
    result = run(tmp_path, {"dies": Variant(dies=True), "slow": SLOW}, budgets={"latency_ms": "0.6x"})
    assert variants([result.plan]) == ["slow"]
    assert result.status is Status.NOT_MET


# the explanation


def test_the_explanation_names_the_budget_in_the_way_and_the_best_that_was_reached(not_met: Result) -> None:
    said = " ".join(not_met.explanation)
    assert not_met.binding is not None
    assert f"{not_met.binding.budget.metric} stands in the way" in said
    assert f"{not_met.binding.budget.metric}: the best that was reached is" in said
    assert "nearest miss" in said


def test_the_best_that_was_reached_is_the_best_of_all_candidates(tmp_path: Path) -> None:
    result = run(tmp_path, {"one": replace(SLOW, latency_ms=7.5), "other": replace(SLOW, latency_ms=9.0)})
    assert "latency_ms: the best that was reached is 0.75x, asked 0.6x." in result.explanation


def test_an_answer_that_took_too_long_says_so(tmp_path: Path) -> None:
    made = Stand(tmp_path, [Scripted("scripted", {"slow": SLOW})], BUDGETS, TASK)
    made.run.deadline = replace(made.run.deadline, max_seconds=1.0, spent_before=2.0)
    result = made.result()
    assert result.out_of_time
    assert "The time was up before every plan of the search space was tried." in result.explanation


def test_what_is_undecided_says_how_many_more_items_would_decide(tmp_path: Path) -> None:
    # 3 points are lost, 5 may be: 100 holdout items do not show it
    result = run(tmp_path, {"good": Variant(wrong_below=0.03)}, task=task_of(ramp(900), ramp(100)))
    assert result.status is Status.UNDECIDED
    assert result.binding is not None
    assert result.binding.needed is not None
    assert f"About {result.binding.needed} more holdout items would decide" in " ".join(result.explanation)


# as JSON


def _few_blocks(folder: Path) -> Result:
    return run(folder, {"good": GOOD}, device=FakeDevice(blocks=2))


def _without_data(folder: Path) -> Result:
    return run(folder, {"good": GOOD}, task=None)


def _broken(folder: Path) -> Result:
    return run(folder, {"fails": Variant(error='"no", it said\n'), "large": LARGE, "dies": Variant(dies=True)})


def _met(folder: Path) -> Result:
    return run(folder, {"wrong": WRONG, "good": GOOD})


def _nothing_tried(folder: Path) -> Result:
    return run(folder, {})


@pytest.mark.parametrize("make", [_met, _few_blocks, _without_data, _broken, _nothing_tried])
def test_every_result_is_json_without_what_json_does_not_know(tmp_path: Path, make: Any) -> None:
    result = make(tmp_path)
    text = json.dumps(result.to_json(), allow_nan=False)
    read = json.loads(text)
    assert read["status"] == str(result.status)
    assert read["plan"] == result.plan.to_json()
    assert (read["plan_name"], read["plan_text"]) == (result.plan_name, str(result.plan))
    assert read["artifact"]["sha256"] == result.artifact.hash
    assert [trial["plan_hash"] for trial in read["trials"]] == [trial.plan.hash for trial in result.history]
    assert [trial["name"] for trial in read["trials"]] == [
        f"scripted {variant}" for variant in variants(trial.plan for trial in result.history)
    ]
    assert [finding["metric"] for finding in read["verdict"]["findings"]] == list(BUDGETS)
    assert read["binding"] == (result.binding.budget.metric if result.binding else None)
    assert len(read["stages"]) == (1 if result.plan == Plan() else 2)


# the stage table


def test_the_stages_are_the_baseline_and_the_answer_with_times_taken_side_by_side(met: Result) -> None:
    before, after = met.stages
    assert (before.name, before.latency_ratio, before.size_ratio) == ("baseline", 1.0, 1.0)
    assert (after.name, after.latency_ratio) == ("scripted good", 0.5)
    assert (before.p50_ms, after.p50_ms, after.mean_ms, after.p95_ms) == (10.0, 5.0, 5.0, 5.0)
    assert after.size_mb == met.unwrap().size_bytes / 1e6
    assert after.size_ratio == pytest.approx(met.unwrap().size_bytes / met.baseline.size_bytes)
    assert (before.score, after.score) == (1.0, 1.0)


def test_what_was_not_measured_is_left_open_in_a_stage() -> None:
    size = {"size_mb": Reading.one("MB", 2.0)}
    row = stage_row("small", Contents(10, 5, {}), size, {"size_mb": Reading.one("MB", 4.0)})
    assert row.size_ratio == 0.5
    assert (row.score, row.mean_ms, row.p50_ms, row.p95_ms, row.latency_ratio) == (None,) * 5


def test_a_stage_has_the_percentiles_of_all_calls_of_all_blocks() -> None:
    times = np.arange(1.0, 101.0).reshape(10, 10)
    readings = {"size_mb": Reading.one("MB", 1.0), "latency_ms": Reading("ms", times)}
    baseline = {"size_mb": Reading.one("MB", 1.0), "latency_ms": Reading("ms", times * 2)}
    row = stage_row("one", Contents(1, 1, {}), readings, baseline)
    assert row.mean_ms == pytest.approx(50.5)
    assert row.p50_ms == pytest.approx(50.5)
    assert row.p95_ms == pytest.approx(95.05)
    assert row.latency_ratio == pytest.approx(0.5)
