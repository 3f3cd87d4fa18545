"""What a limit on the time leaves for measurements, probes, further searches and confirmations."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.core.plan import Plan
from autocompress.core.probes import Probes
from autocompress.run.escalation import search_and_confirm
from autocompress.run.reserve import (
    SHORTEST,
    is_time_to_confirm,
    is_time_to_score,
    seconds_for_measuring,
)
from autocompress.run.stages import measure_baseline
from autocompress.system.progress import Deadline, Event
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of

TASK = task_of(ramp(400), ramp(1000))
GOOD = Variant(kilobytes=20, latency_ms=5.0)
BUDGETS = {"size_mb": "0.7x", "latency_ms": "0.6x", "max_accuracy_drop_pp": 10.0}


def stand(folder: Path, deadline: Deadline, variant: Variant = GOOD) -> Stand:
    return Stand(folder, [Scripted("scripted", {"good": variant})], BUDGETS, TASK, deadline=deadline)


@pytest.mark.parametrize(
    ("limit", "spent", "seconds"),
    [(None, 0.0, None), (3600.0, 0.0, None), (100.0, 20.0, 0.1 * 80 / 2), (100.0, 200.0, SHORTEST)],
)
def test_a_measurement_takes_a_share_of_the_time_that_is_left(
    tmp_path: Path, limit: float | None, spent: float, seconds: float | None
) -> None:
    run = stand(tmp_path, Deadline.start(limit, spent)).run
    found = seconds_for_measuring(run, 0.1)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=0.2))


def test_a_first_confirmation_is_made_where_it_ends_hardly_too_late(tmp_path: Path) -> None:
    assert is_time_to_confirm(stand(tmp_path / "a", Deadline.start(None, 1e6)).run)
    assert is_time_to_confirm(stand(tmp_path / "b", Deadline.start(1000.0, 1010.0)).run)
    assert not is_time_to_confirm(stand(tmp_path / "c", Deadline.start(1000.0, 1080.0)).run)


def test_validation_data_that_take_too_long_are_not_scored_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stand(tmp_path, Deadline.start(60.0))
    events: list[Event] = []
    made.run.progress = events.append
    # 400 items of a second each
    monkeypatch.setattr(made.run.measurer, "seconds_per_item", lambda split: 1.0)
    assert not is_time_to_score(made.run)
    measurement = measure_baseline(made.run)
    assert "latency_ms" in measurement.readings
    assert "score" not in measurement.readings
    assert "the time does not suffice to score 400 validation items" in events[-1].sentence


def test_what_there_is_no_time_to_probe_is_said_in_the_answer(tmp_path: Path) -> None:
    made = stand(tmp_path, Deadline.start(1.0, 2.0))
    made.record.probes = Probes(skipped=("int8_dynamic on layers",))
    result = made.result()
    assert result.plan == Plan()
    assert any("left no time to probe: int8_dynamic on layers." in sentence for sentence in result.explanation)


def test_an_export_that_takes_longer_than_the_limit_is_said(tmp_path: Path) -> None:
    made = stand(tmp_path, Deadline.start(1.0, 9.0))
    made.run.builder.export_seconds = 8.0
    said = "Exporting the model took 8 s, longer than the limit; that cannot be cut."
    assert said in made.result().explanation


def test_nothing_more_is_searched_where_the_answer_needs_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stand(tmp_path, Deadline.start(1000.0), Variant(latency_ms=8.0))
    monkeypatch.setattr("autocompress.run.escalation.seconds_for_answer", lambda run: 2000.0)
    planned, search = made.planned(), made.search()
    final, _ = search_and_confirm(search, planned, lambda result: None)
    assert search.out_of_time
    assert final.structure_attempts == 0
