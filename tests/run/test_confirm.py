import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.source import Array
from autocompress.core.task import Task
from autocompress.core.verdict import Finding, Standing, Status, Verdict
from autocompress.errors import DataError, RuntimeFailureError
from autocompress.run.answer import best_of
from autocompress.run.confirm import MAX_LOOKS, Confirmation, confirm, confirm_once
from autocompress.run.record_store import open_record
from autocompress.statistics.bounds import drop_bounds, median_bounds, spend
from autocompress.system.progress import Event
from autocompress.testing.fakes import MACHINE, FakeDevice, Scripted, Stand, Variant, items_of, ramp, task_of, variants

BUDGETS = {"size_mb": "0.7x", "latency_ms": "0.6x", "max_accuracy_drop_pp": 5.0}
ALPHA = 0.05
# the validation data never show that a variant is wrong below 0.5; a fifth of the holdout does
EASY_VALIDATION = np.full(300, 0.9)
A_FIFTH_IS_HARD = np.array([0.25] * 200 + [0.9] * 800)
GOOD = Variant()
DISAPPOINTS = Variant(wrong_below=0.5)
TASK = task_of(EASY_VALIDATION, A_FIFTH_IS_HARD)


def stand(folder: Path, named: dict[str, Variant], **more: Any) -> Stand:
    return Stand(folder, [Scripted("scripted", named)], **{"budgets": BUDGETS, "task": TASK, **more})


def plan_of(made: Stand, name: str) -> Plan:
    (technique,) = made.techniques
    assert isinstance(technique, Scripted)
    return technique.plan(name)


def confirmed(made: Stand, name: str) -> Confirmation:
    return confirm(made.run, plan_of(made, name))


def drop_of(confirmation: Confirmation) -> Any:
    finding = confirmation.verdict.of("max_accuracy_drop_pp")
    assert finding is not None
    return finding


def looks_at(confirmations: Sequence[Confirmation]) -> list[int]:
    return [confirmation.certificate["look"] for confirmation in confirmations]


# one confirmation


def test_a_clear_answer_takes_no_more_items_than_it_needs(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD, "disappoints": DISAPPOINTS}, items="as_needed")
    good = confirmed(made, "good")
    assert good.verdict.status is Status.MET
    assert drop_of(good).samples == good.certificate["data"]["read"] < good.certificate["data"]["items"] == 1000
    # a look that may read on spends its error probability bit by bit
    assert good.certificate["accuracy_error_probability"] < spend(ALPHA, 1)
    disappoints = confirmed(made, "disappoints")
    assert disappoints.verdict.status is Status.NOT_MET
    assert drop_of(disappoints).samples == 250


def test_the_holdout_decides(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD, "disappoints": DISAPPOINTS})
    good = confirmed(made, "good")
    assert good.verdict.status is Status.MET
    assert drop_of(good).samples == 1000
    disappoints = confirmed(made, "disappoints")
    assert disappoints.verdict.status is Status.NOT_MET
    assert drop_of(disappoints).value == pytest.approx(20.0)
    assert drop_of(disappoints).standing is Standing.EXCEEDED


def test_without_val_the_validation_third_takes_no_part(tmp_path: Path) -> None:
    task = Task(test=items_of(ramp(300)))
    made = stand(tmp_path, {"good": GOOD}, task=task)
    assert task.validation is not None
    assert task.holdout is not None
    assert not set(task.validation.indices) & set(task.holdout.indices)
    assert drop_of(confirmed(made, "good")).samples == len(task.holdout) < 300


def test_latency_is_taken_afresh_beside_the_baseline(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD})
    first = next(made.search().contenders())
    before = len(made.device.measured)
    found = confirm(made.run, first.plan)
    assert made.device.measured[before:] == [(made.run.baseline.hash, found.artifact.hash)]


def test_progress_tells_of_both_measurements(tmp_path: Path) -> None:
    events: list[Event] = []
    made = stand(tmp_path, {"good": GOOD})
    made.run.progress = events.append
    confirm(made.run, plan_of(made, "good"))
    assert [event.stage for event in events] == ["confirm", "confirm"]
    assert "accuracy on up to 1000 items that took no part in the selection" in events[1].sentence


def test_the_certificate_says_what_was_confirmed_on_what_and_how(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD})
    found = confirmed(made, "good")
    certificate = json.loads(json.dumps(dict(found.certificate), allow_nan=False))
    assert certificate["status"] == "met"
    assert certificate["plan"] == plan_of(made, "good").to_json()
    assert certificate["plan_name"] == "scripted good"
    assert certificate["artifact_sha256"] == found.artifact.hash
    assert certificate["baseline_sha256"] == made.run.baseline.hash
    assert TASK.holdout is not None
    assert certificate["data"] == {"split": "test", "items": 1000, "read": 1000, "hash": TASK.holdout.hash}
    assert certificate["findings"] == [finding.to_json() for finding in found.verdict.findings]
    assert certificate["machine_fingerprint"] == MACHINE.fingerprint
    assert certificate["confidence"] == 0.95
    assert certificate["versions"]


def test_a_certificate_of_few_blocks_is_json_too(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD}, device=FakeDevice(blocks=2))
    found = confirmed(made, "good")
    assert found.verdict.status is Status.UNDECIDED
    assert json.loads(json.dumps(dict(found.certificate), allow_nan=False))["status"] == "undecided"


def test_an_artifact_that_dies_when_it_is_confirmed_is_an_error_and_a_look(tmp_path: Path) -> None:
    made = stand(tmp_path, {"dies": Variant(dies=True)})
    with pytest.raises(RuntimeFailureError, match="died while it was measured"):
        confirmed(made, "dies")
    assert len(made.record.looks) == 1


# looks


def test_each_look_at_another_file_spends_less_error_probability_than_the_one_before(tmp_path: Path) -> None:
    variants = {name: Variant(wrong_below=0.5, kilobytes=20 + i) for i, name in enumerate(("one", "two", "three"))}
    made = stand(tmp_path, variants, task=task_of(EASY_VALIDATION, ramp(1000) / 2 + 0.49))
    found = [confirmed(made, name) for name in variants]
    assert looks_at(found) == [1, 2, 3]
    spent = [confirmation.certificate["accuracy_error_probability"] for confirmation in found]
    assert spent == pytest.approx([spend(ALPHA, look) for look in (1, 2, 3)])
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) < ALPHA
    # the same answers to the same items are judged more strictly
    lost = round(drop_of(found[0]).value * 10)
    assert lost > 0
    assert [drop_of(c).high for c in found] == [100 * drop_bounds(lost, 0, 1000, alpha)[1] for alpha in spent]
    assert [drop_of(c).high for c in found] == sorted(drop_of(c).high for c in found)


def test_times_share_the_error_probability_of_the_looks(tmp_path: Path) -> None:
    names = ("one", "two", "three")
    device = FakeDevice(blocks=9, jitter=0.1)
    made = stand(tmp_path, {name: Variant(kilobytes=20 + i) for i, name in enumerate(names)}, device=device)
    found = [confirmed(made, name) for name in names]
    levels = [confirmation.certificate["error_probability"] for confirmation in found]
    assert levels == pytest.approx([spend(ALPHA, look) for look in (1, 2, 3)])
    # the same times are judged more strictly: of nine loads all are needed, and then no more than that
    bounds = [confirmation.verdict.of("latency_ms") for confirmation in found]
    assert [median_bounds(b.measurement.latency_ratios("p50"), a) for b, a in zip(found, levels, strict=True)] == [
        (finding.low, finding.high) for finding in bounds if finding
    ]
    assert bounds[0].high < bounds[1].high == bounds[2].high
    # and the device is asked to measure as much as that level takes
    assert [profile.alpha for profile in device.profiles[-3:]] == pytest.approx(levels)


def test_to_confirm_the_same_file_again_spends_nothing(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD})
    assert looks_at([confirmed(made, "good"), confirmed(made, "good")]) == [1, 1]
    assert len(made.record.looks) == 1


def test_looks_are_shared_over_resumptions(tmp_path: Path) -> None:
    variants = {"good": GOOD, "other": replace(GOOD, kilobytes=21)}
    made = stand(tmp_path, variants)
    confirmed(made, "good")
    made.record.close()
    again = stand(tmp_path, variants)
    assert looks_at([confirmed(again, "other")]) == [2]
    assert len(open_record(again.run.workspace.journal).looks) == 2


def test_a_look_counts_before_it_is_taken(tmp_path: Path) -> None:
    def score(outputs: Array, targets: Array) -> Array:
        raise ValueError("a bug of the user")

    made = stand(tmp_path, {"good": GOOD}, task=replace(TASK, score=score))
    with pytest.raises(DataError, match="a bug of the user"):
        confirmed(made, "good")
    assert len(made.record.looks) == 1


def test_without_data_only_times_are_looked_at(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD}, task=None)
    found = confirmed(made, "good")
    assert len(made.record.looks) == found.certificate["look"] == 1
    assert found.certificate["error_probability"] == pytest.approx(spend(ALPHA, 1))
    assert found.certificate["data"] is None
    assert found.certificate["accuracy_error_probability"] is None
    assert found.verdict.status is Status.UNDECIDED


def test_data_too_few_to_confirm_with_leave_accuracy_undecided(tmp_path: Path) -> None:
    # the only test item is one of the validation third
    task = Task(test=items_of(ramp(1)))
    assert task.holdout is not None
    assert len(task.holdout) == 0
    made = stand(tmp_path, {"good": GOOD}, task=task)
    assert confirmed(made, "good").verdict.status is Status.UNDECIDED


# a run's confirmations


def test_a_confirmation_that_fails_makes_the_search_go_on_at_a_smaller_error_probability(tmp_path: Path) -> None:
    named = {"disappoints": DISAPPOINTS, "good": replace(GOOD, latency_ms=5.5), "never": GOOD}
    made = stand(tmp_path, named)
    found = made.confirmations()
    assert variants(confirmation.plan for confirmation in found) == ["disappoints", "good"]
    assert [confirmation.verdict.status for confirmation in found] == [Status.NOT_MET, Status.MET]
    assert looks_at(found) == [1, 2]
    assert found[1].certificate["accuracy_error_probability"] == pytest.approx(spend(ALPHA, 2))
    assert made.tried() == ["disappoints", "good"]


def test_at_most_so_many_looks_are_taken(tmp_path: Path) -> None:
    named = {f"variant {i}": replace(DISAPPOINTS, latency_ms=1.0 + i / 10) for i in range(MAX_LOOKS + 2)}
    made = stand(tmp_path, named)
    found = made.confirmations()
    assert len(found) == MAX_LOOKS == len(made.record.looks)
    assert {confirmation.verdict.status for confirmation in found} == {Status.NOT_MET}


def test_where_only_an_unmeasured_budget_stands_in_the_way_one_confirmation_is_enough(tmp_path: Path) -> None:
    made = stand(tmp_path, {"one": GOOD, "other": GOOD}, task=None)
    (found,) = made.confirmations()
    assert found.hopeless
    assert found.verdict.status is Status.UNDECIDED
    assert made.tried() == ["one"]


def test_what_is_exceeded_or_undecided_is_not_hopeless(tmp_path: Path) -> None:
    few = stand(tmp_path / "few", {"good": GOOD}, device=FakeDevice(blocks=3), task=None)
    slow = stand(tmp_path / "slow", {"slow": Variant(latency_ms=9.0)}, task=None)
    for found, latency in ((confirmed(few, "good"), Standing.UNDECIDED), (confirmed(slow, "slow"), Standing.EXCEEDED)):
        assert [f.standing for f in found.verdict.findings] == [Standing.MET, latency, Standing.UNMEASURED]
        assert not found.hopeless


def test_a_model_that_fits_is_confirmed_as_it_is_and_nothing_is_tried(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD}, budgets={"size_mb": "1x", "latency_ms": 50.0, "max_accuracy_drop_pp": 0.0})
    (found,) = made.confirmations()
    assert found.plan == Plan()
    assert found.artifact == made.run.baseline
    assert found.measurement.unchanged
    assert found.verdict.status is Status.MET
    assert made.tried() == []


def test_whether_a_model_fits_is_judged_at_the_profiles_batch(tmp_path: Path) -> None:
    # 8 items in 10 ms
    made = stand(tmp_path, {"good": GOOD}, budgets={"throughput_per_s": 700.0}, batch=8)
    assert made.planned().fits


# remembering


def test_a_confirmation_is_remembered_with_its_measurement_verdict_and_certificate(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD})
    assert made.record.confirmation(plan_of(made, "good")) is None
    found = confirm_once(made.run, plan_of(made, "good"))
    made.record.close()
    again = stand(tmp_path, {"good": GOOD})
    known = confirm_once(again.run, found.plan)
    assert known.plan == found.plan
    assert known.artifact.hash == found.artifact.hash
    assert known.verdict == found.verdict
    assert dict(known.certificate) == dict(found.certificate)
    for name, reading in found.measurement.readings.items():
        assert np.array_equal(known.measurement.readings[name].samples, reading.samples)
    assert len(again.record.looks) == 1
    assert again.device.measured == []


def test_a_resumed_run_repeats_no_confirmation_that_is_remembered(tmp_path: Path) -> None:
    named = {"disappoints": DISAPPOINTS, "good": replace(GOOD, latency_ms=5.5)}
    first = stand(tmp_path, named).confirmations()
    again = stand(tmp_path, named)
    second = again.confirmations()
    assert [dict(c.certificate) for c in second] == [dict(c.certificate) for c in first]
    assert len(again.record.looks) == 2
    assert again.device.measured == []


def test_a_run_that_was_stopped_between_two_confirmations_goes_on_with_the_second(tmp_path: Path) -> None:
    named = {"disappoints": DISAPPOINTS, "good": replace(GOOD, latency_ms=5.5)}
    made = stand(tmp_path, named)
    first = next(made.search().contenders())
    confirm_once(made.run, first.plan)
    made.record.close()
    found = stand(tmp_path, named).confirmations()
    assert variants(confirmation.plan for confirmation in found) == ["disappoints", "good"]
    assert looks_at(found) == [1, 2]


def test_a_confirmation_of_other_bytes_is_not_remembered_as_one_of_these(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD})
    confirm_once(made.run, plan_of(made, "good"))
    changed = stand(tmp_path, {"good": replace(GOOD, wrong_below=0.1)})
    with pytest.raises(RuntimeFailureError, match="no longer the file that was confirmed"):
        confirm_once(changed.run, plan_of(changed, "good"))


def test_of_undecided_answers_the_one_whose_bound_is_nearest_to_its_limit_is_told(tmp_path: Path) -> None:
    budget = Budget("max_accuracy_drop_pp", 2.0)

    def looked(place: int, value: float, high: float, standing: Standing = Standing.UNDECIDED) -> Confirmation:
        plan = Plan(finish=(Step("static", Stage.PRECISION, {"of": place}),))
        finding = Finding(budget, standing, value, value - 2, high)
        return Confirmation(plan, file, Measurement(), Verdict((finding,)), {})

    file = Artifact(tmp_path, "model.onnx", ("model.onnx",), "onnx", (), ())
    first, second, third = looked(0, 2.3, 4.3), looked(1, 0.9, 3.8), looked(2, 0.4, 2.3)
    assert best_of([first, second, third]) is third
    met = looked(3, 0.9, 1.9, Standing.MET)
    assert best_of([first, met, third]) is met
    broken = looked(4, 3.0, 3.1, Standing.EXCEEDED)
    assert best_of([broken, first]) is first
    assert best_of([]) is None
