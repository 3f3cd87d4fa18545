from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from autocompress.core.plan import Effort, Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Standing, Status
from autocompress.errors import DataError
from autocompress.run.record_store import open_record
from autocompress.run.search import evaluate
from autocompress.system import progress
from autocompress.system.progress import Deadline, Event
from autocompress.testing.fakes import BASELINE_MS, FakeDevice, Scripted, Stand, Variant, ramp, task_of, variants

BUDGETS = {"size_mb": "0.7x", "latency_ms": "0.6x", "max_accuracy_drop_pp": 10.0}
NEEDS = {"size_mb": "size_mb", "latency_ms": "latency_ms", "max_accuracy_drop_pp": "score"}
GOOD = Variant(kilobytes=20, latency_ms=5.0, wrong_below=0.02)
LARGE = Variant(kilobytes=36)
SLOW = Variant(latency_ms=8.0)
WRONG = Variant(wrong_below=0.3)
TASK = task_of(ramp(400), ramp(1000))

EVERYTHING = {"size_mb", "latency_ms", "memory_mb", "score", "answer", "label"}


def shelf(**named: Variant) -> list[Scripted]:
    return [Scripted("scripted", named)]


def stand(folder: Path, *techniques: Scripted, **more: object) -> Stand:
    return Stand(folder, techniques, **{"budgets": BUDGETS, "task": TASK, **more})  # type: ignore[arg-type]


def try_one(folder: Path, variant: Variant, **more: object) -> tuple[Trial, Stand]:
    """The trial of one variant, made outside the record."""
    (technique,) = shelf(one=variant)
    made = stand(folder, technique, **more)
    return evaluate(made.run, technique.plan("one"), 0), made


# one trial


def test_a_plan_that_keeps_every_budget_is_measured_completely(tmp_path: Path) -> None:
    trial, made = try_one(tmp_path, GOOD)
    assert trial.outcome is Outcome.MEASURED
    assert set(trial.measurement.readings) == EVERYTHING
    assert set(trial.measurement.baseline) == EVERYTHING
    assert trial.verdict.status is Status.MET
    assert trial.promising
    assert set(trial.seconds) == {"build", "size", "latency", "accuracy"}
    assert all(f"{metric}: " in trial.reason for metric in BUDGETS)
    built = made.run.artifacts.find(trial.plan)
    assert built is not None
    assert trial.artifact_hash == built.hash


def test_the_figures_are_those_of_the_file(tmp_path: Path) -> None:
    trial, made = try_one(tmp_path, GOOD)
    artifact = made.run.artifacts.find(trial.plan)
    assert artifact is not None
    assert trial.measurement.readings["size_mb"].value == artifact.size_bytes / 1e6
    assert trial.measurement.readings["latency_ms"].statistic("p50") == 5.0
    assert trial.measurement.baseline["latency_ms"].statistic("p50") == BASELINE_MS
    assert trial.measurement.readings["score"].samples.shape == (400,)
    assert trial.measurement.baseline["score"].value == 1.0
    # every item that is easier than 0.02 is answered wrong
    assert trial.measurement.readings["score"].value == 1 - 8 / 400


@pytest.mark.parametrize(
    ("variant", "broken", "readings"),
    [
        (LARGE, "size_mb", {"size_mb"}),
        (SLOW, "latency_ms", {"size_mb", "latency_ms", "memory_mb"}),
        (WRONG, "max_accuracy_drop_pp", EVERYTHING),
        (replace(LARGE, latency_ms=8.0, wrong_below=0.3), "size_mb", {"size_mb"}),
        (replace(SLOW, wrong_below=0.3), "latency_ms", {"size_mb", "latency_ms", "memory_mb"}),
    ],
)
def test_a_trial_stops_at_the_first_broken_budget_cheapest_measurement_first(
    tmp_path: Path, variant: Variant, broken: str, readings: set[str]
) -> None:
    trial, made = try_one(tmp_path, variant)
    assert trial.outcome is Outcome.STOPPED
    assert trial.stopped_by == broken
    assert trial.reason.startswith(f"{broken}: ")
    assert set(trial.measurement.readings) == readings
    assert not trial.promising
    assert len(made.device.measured) == ("latency_ms" in readings)
    # what was not reached is not forgotten
    unmeasured = {f.budget.metric for f in trial.verdict.findings if f.standing is Standing.UNMEASURED}
    assert unmeasured == {metric for metric, needs in NEEDS.items() if needs not in readings}


def test_a_budget_that_is_undecided_stops_nothing(tmp_path: Path) -> None:
    trial, _ = try_one(tmp_path, GOOD, device=FakeDevice(blocks=3))
    assert trial.outcome is Outcome.MEASURED
    assert "score" in trial.measurement.readings
    assert trial.verdict.status is Status.UNDECIDED
    # on the right side of every limit, though not shown to be
    assert trial.promising


def test_without_data_accuracy_stays_unmeasured(tmp_path: Path) -> None:
    trial, _ = try_one(tmp_path, GOOD, task=None)
    assert trial.outcome is Outcome.MEASURED
    assert "score" not in trial.measurement.readings
    finding = trial.verdict.of("max_accuracy_drop_pp")
    assert finding is not None
    assert finding.standing is Standing.UNMEASURED


def test_what_a_technique_cannot_do_ends_the_trial_with_its_sentence(tmp_path: Path) -> None:
    trial, made = try_one(tmp_path, Variant(error="does not know this layer."))
    assert trial.outcome is Outcome.FAILED
    assert trial.reason == "scripted: does not know this layer."
    assert set(trial.seconds) == {"build"}
    assert made.device.measured == []
    assert made.run.artifacts.find(trial.plan) is None


def test_what_the_device_cannot_run_ends_the_trial_with_its_sentence(tmp_path: Path) -> None:
    trial, _ = try_one(tmp_path, Variant(dies=True))
    assert trial.outcome is Outcome.FAILED
    assert "died while it was measured." in trial.reason
    assert set(trial.measurement.readings) == {"size_mb"}


# one search space


def test_for_effort_the_first_promising_plan_is_enough(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(large=LARGE, wrong=WRONG, good=GOOD, better=replace(GOOD, latency_ms=1.0)))
    first = next(made.search().contenders())
    assert variants([first.plan]) == ["good"]
    assert made.tried() == ["large", "wrong", "good"]


def test_for_effort_a_cheaper_recipe_is_tried_before_a_faster_one(tmp_path: Path) -> None:
    cheap = Scripted("cheap", {"slow": SLOW, "good": GOOD}, Effort.NONE)
    dear = Scripted("dear", {"fast": replace(GOOD, latency_ms=1.0)}, Effort.CALIBRATION)
    made = stand(tmp_path, cheap, dear)
    contenders = made.search().contenders()
    assert variants([next(contenders).plan]) == ["good"]
    assert dear.applied == []
    # asked for more, it goes on
    assert variants([next(contenders).plan]) == ["fast"]
    assert next(contenders, None) is None
    assert made.tried() == ["slow", "good", "fast"]


@pytest.mark.parametrize(
    ("objective", "order"),
    [
        ("size", ["small", "fast", "exact"]),
        ("latency", ["fast", "exact", "small"]),
        ("serving_cost", ["fast", "exact", "small"]),
        ("accuracy", ["exact", "small", "fast"]),
        ("effort", ["small", "fast", "exact"]),
    ],
)
def test_other_objectives_try_everything_and_hand_out_the_best_first(
    tmp_path: Path, objective: str, order: list[str]
) -> None:
    small = Variant(kilobytes=10, latency_ms=5.5, wrong_below=0.02)
    fast = Variant(kilobytes=20, latency_ms=2.0, wrong_below=0.04)
    exact = Variant(kilobytes=24, latency_ms=5.0)
    made = stand(tmp_path, *shelf(small=small, wrong=WRONG, fast=fast, exact=exact), objective=objective)
    contenders = made.search().contenders()
    found = [next(contenders)]
    assert len(made.tried()) == (1 if objective == "effort" else 4)
    found += contenders
    assert variants(trial.plan for trial in found) == order


def test_what_stays_undecided_is_handed_out_last_and_what_is_broken_never(tmp_path: Path) -> None:
    # of 400 items 10.5 points are lost where 10 may be: neither shown to be kept nor to be broken
    border = Variant(latency_ms=1.0, wrong_below=0.105)
    made = stand(tmp_path, *shelf(border=border, wrong=WRONG, good=GOOD), objective="latency")
    found = list(made.search().contenders())
    assert variants(trial.plan for trial in found) == ["border", "good"][::-1]
    assert found[1].verdict.status is Status.UNDECIDED
    assert not found[1].promising


def test_nothing_is_handed_out_when_everything_is_broken(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(large=LARGE, slow=SLOW, wrong=WRONG))
    search = made.search()
    assert list(search.contenders()) == []
    assert made.tried() == ["large", "slow", "wrong"]
    assert not search.out_of_time


def test_a_technique_that_fails_ends_its_trial_and_not_the_run(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(fails=Variant(error="no."), dies=Variant(dies=True), good=GOOD))
    found = list(made.search().contenders())
    assert variants(trial.plan for trial in found) == ["good"]
    assert [trial.outcome for trial in made.record.trials()] == [Outcome.FAILED, Outcome.FAILED, Outcome.MEASURED]


def test_a_score_that_fails_on_one_file_ends_its_trial(tmp_path: Path) -> None:
    def score(outputs: object, targets: object) -> object:
        raise ValueError("a bug of the user")

    task = replace(TASK, score=score)
    made = stand(tmp_path, *shelf(good=GOOD), task=task)
    assert list(made.search().contenders()) == []
    (trial,) = made.record.trials()
    assert trial.outcome is Outcome.FAILED
    assert "a bug of the user" in trial.reason
    # the unchanged model is scored first, and there it ends the run
    with pytest.raises(DataError, match="a bug of the user"):
        made.planned()


def test_an_interrupted_trial_gives_its_claim_back(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(good=GOOD, other=GOOD), objective="latency")

    def interrupt(event: Event) -> None:
        if "latency" in event.sentence and len(made.record.trials()) == 2:
            raise KeyboardInterrupt

    search = made.search(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(search.contenders())
    assert made.tried() == ["good"]


def test_a_resumed_search_tries_only_what_is_left_and_hands_out_what_was_found(tmp_path: Path) -> None:
    named = {"wrong": WRONG, "good": GOOD, "fast": replace(GOOD, latency_ms=1.0), "slow": SLOW}
    (technique,) = shelf(**named)
    first = stand(tmp_path, technique)
    next(first.search().contenders())
    assert technique.applied == ["wrong", "good"]
    first.record.close()
    (technique,) = shelf(**named)
    second = stand(tmp_path, technique, objective="latency")
    found = list(second.search().contenders())
    assert technique.applied == ["fast", "slow"]
    assert variants(trial.plan for trial in found) == ["fast", "good"]
    assert second.tried() == ["wrong", "good", "fast", "slow"]


def test_progress_counts_plans_and_names_the_best_so_far(tmp_path: Path) -> None:
    events: list[Event] = []
    made = stand(tmp_path, *shelf(good=GOOD, wrong=WRONG, slow=SLOW), objective="size")
    list(made.search(events.append).contenders())
    building = [event for event in events if event.sentence.startswith("building")]
    assert [(event.done, event.total) for event in building] == [(0, 3), (1, 3), (2, 3)]
    assert [event.best for event in building] == ["", "scripted good", "scripted good"]
    assert {event.stage for event in events} == {"search"}
    assert building[0].seconds_left is None
    assert building[2].seconds_left is not None
    assert any("measuring accuracy of scripted wrong" in event.sentence for event in events)


# time


def test_when_the_time_is_up_nothing_more_is_tried(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(good=GOOD), deadline=Deadline.start(5.0, spent_before=6.0))
    search = made.search()
    assert list(search.contenders()) == []
    assert search.out_of_time
    assert made.tried() == []


@pytest.mark.parametrize("objective", ["effort", "size"])
def test_when_the_time_runs_out_on_the_way_what_was_found_is_handed_out(
    tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    many = shelf(wrong=WRONG, good=GOOD, small=replace(GOOD, kilobytes=4), slow=SLOW)
    made = stand(tmp_path, *many, objective=objective, deadline=Deadline.start(1.0))

    def clock(event: Event) -> None:
        nonlocal now
        if event.done == 1:
            now = 2.0

    search = made.search(clock)
    assert variants(trial.plan for trial in search.contenders()) == ["good"]
    assert search.out_of_time
    assert made.tried() == ["wrong", "good"]


@pytest.mark.parametrize(("needs", "tried"), [(900.0, ["good", "small"]), (1200.0, ["good"])])
def test_what_is_predicted_to_take_longer_than_is_left_is_not_begun(
    tmp_path: Path, needs: float, tried: list[str]
) -> None:
    made = stand(tmp_path, *shelf(good=GOOD), Scripted("longer", {"small": GOOD}), deadline=Deadline.start(1000.0))
    search = made.search()
    first, second = made.search_space.recipes
    search.search_space = SearchSpace((first, replace(second, predicted_seconds=needs)), {})
    assert len(list(search.contenders())) == len(tried)
    assert made.tried() == tried
    assert search.out_of_time is (len(tried) == 1)


def test_plans_that_are_known_are_not_handed_out_again(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(good=GOOD, other=replace(GOOD, latency_ms=4.0)), objective="latency")
    first, second = made.search().contenders()
    assert [trial.plan for trial in made.search().contenders({first.plan.hash})] == [second.plan]


def test_time_that_is_not_limited_never_runs_out(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(slow=SLOW), deadline=Deadline.start(None, spent_before=1e9))
    search = made.search()
    assert list(search.contenders()) == []
    assert not search.out_of_time
    assert made.tried() == ["slow"]


def test_the_time_spent_is_noted_after_every_trial(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(slow=SLOW), deadline=Deadline.start(1000.0, spent_before=100.0))
    list(made.search().contenders())
    assert 100.0 < made.record.elapsed < 200.0


# the nearest miss


def test_the_nearest_miss_is_measured_completely_and_noted(tmp_path: Path) -> None:
    far, near = Variant(kilobytes=38, wrong_below=0.02), Variant(kilobytes=31, wrong_below=0.02)
    made = stand(tmp_path, *shelf(far=far, near=near))
    search = made.search()
    assert list(search.contenders()) == []
    assert made.device.measured == []
    miss = search.nearest_miss()
    assert miss is not None
    assert variants([miss.plan]) == ["near"]
    assert miss.outcome is Outcome.STOPPED
    assert set(miss.measurement.readings) == EVERYTHING
    assert [finding.standing for finding in miss.verdict.findings] == [Standing.EXCEEDED, Standing.MET, Standing.MET]
    # the trial itself stays what it was
    assert set(made.record.trials()[miss.number].measurement.readings) == {"size_mb"}
    # both are near enough to be compared once they are measured to the end
    assert len(made.device.measured) == 2


def test_the_nearest_miss_is_not_measured_again_when_the_run_is_resumed(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(large=LARGE))
    list(made.search().contenders())
    first = made.search().nearest_miss()
    again = stand(tmp_path, *shelf(large=LARGE))
    second = again.search().nearest_miss()
    assert first is not None
    assert second is not None
    assert second.to_json() == first.to_json()
    assert again.device.measured == []


def test_another_nearest_miss_replaces_the_one_that_was_noted(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(large=LARGE))
    list(made.search().contenders())
    made.search().nearest_miss()
    again = stand(tmp_path, *shelf(large=LARGE, nearer=replace(LARGE, kilobytes=29)))
    search = again.search()
    list(search.contenders())
    miss = search.nearest_miss()
    assert miss is not None
    assert variants([miss.plan]) == ["nearer"]
    assert "score" in miss.measurement.readings
    assert miss.number in open_record(again.run.workspace.journal).nearest_misses


def test_fewer_broken_budgets_are_nearer_than_a_smaller_excess(tmp_path: Path) -> None:
    # both are measured to the end: one misses accuracy and latency by little, the other accuracy alone by far
    two = Variant(latency_ms=6.05, wrong_below=0.12)
    one = Variant(latency_ms=5.0, wrong_below=0.5)
    made = stand(tmp_path, *shelf(two=two, one=one), device=FakeDevice(jitter=0.2))
    search = made.search()
    list(search.contenders())
    assert [len(trial.measurement.readings) for trial in made.record.trials()] == [len(EVERYTHING)] * 2
    miss = search.nearest_miss()
    assert miss is not None
    assert variants([miss.plan]) == ["one"]


def test_the_nearest_miss_is_nearest_by_all_budgets_once_they_are_measured(tmp_path: Path) -> None:
    # one is stopped by size before it shows that it is ten times too slow and always wrong
    hopeless = Variant(kilobytes=29, latency_ms=60.0, wrong_below=1.0)
    close = Variant(wrong_below=0.2)
    made = stand(tmp_path, *shelf(hopeless=hopeless, close=close))
    search = made.search()
    list(search.contenders())
    miss = search.nearest_miss()
    assert miss is not None
    assert variants([miss.plan]) == ["close"]


def test_a_nearest_miss_that_dies_while_it_is_measured_is_none_and_says_so(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(large=replace(LARGE, dies=True)))
    search = made.search()
    list(search.contenders())
    assert search.nearest_miss() is None
    (trial,) = made.record.trials()
    assert trial.outcome is Outcome.FAILED
    assert "died while it was measured." in trial.reason


def test_a_candidate_that_cannot_run_is_no_nearest_miss(tmp_path: Path) -> None:
    made = stand(tmp_path, *shelf(dies=Variant(dies=True), slow=SLOW))
    search = made.search()
    list(search.contenders())
    miss = search.nearest_miss()
    assert miss is not None
    assert variants([miss.plan]) == ["slow"]


def _nothing(made: Stand) -> None:
    del made


def _failures(made: Stand) -> None:
    list(made.search().contenders())


@pytest.mark.parametrize("before", [_nothing, _failures])
def test_without_a_measurement_there_is_no_nearest_miss(tmp_path: Path, before: Callable[[Stand], None]) -> None:
    made = stand(tmp_path, *shelf(fails=Variant(error="no.")))
    before(made)
    assert made.search().nearest_miss() is None


# cost


def test_for_effort_the_cost_is_the_effort_first_then_latency_then_size(tmp_path: Path) -> None:
    cheap = Scripted("cheap", {"slow": GOOD, "fast": replace(GOOD, latency_ms=2.0)}, Effort.NONE)
    dear = Scripted("dear", {"fastest": replace(GOOD, latency_ms=1.0)}, Effort.CALIBRATION)
    made = stand(tmp_path, cheap, dear)
    plans = [cheap.plan("slow"), cheap.plan("fast"), dear.plan("fastest"), Plan()]
    trials = [evaluate(made.run, plan, number) for number, plan in enumerate(plans)]
    ordered = sorted(trials, key=made.run.cost)
    assert variants(trial.plan for trial in ordered) == ["fast", "slow", "", "fastest"]


@pytest.mark.parametrize("objective", ["effort", "size", "latency", "serving_cost", "accuracy"])
def test_what_was_not_measured_costs_most(tmp_path: Path, objective: str) -> None:
    (technique,) = shelf(good=GOOD, fails=Variant(error="no."))
    made = stand(tmp_path, technique, objective=objective)
    good, failed = (evaluate(made.run, technique.plan(name), 0) for name in ("good", "fails"))
    assert made.run.cost(good) < made.run.cost(failed)
    assert np.inf in made.run.cost(failed)
