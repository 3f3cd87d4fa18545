import os
from pathlib import Path

import pytest
from autocompress.evaluation.workbench import Workbench

from autocompress.errors import RecordError
from autocompress.run.setup import _open_record
from autocompress.system import workers as worker
from autocompress.system.workers import Worker
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of

TASK = task_of(ramp(40), ramp(100))


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    made = Stand(tmp_path, [Scripted("scripted", {"one": Variant()})], {"size_mb": "0.7x"}, TASK)
    made.run.export_baseline(tmp_path)
    made.record.close()
    made.run.workspace.journal.unlink()
    return made.run


def test_a_new_run_goes_on_counting_the_looks_at_the_same_data(bench: Workbench) -> None:
    first = _open_record(bench, {}, resume=False)
    first.spend_look("a")
    first.close()
    second = _open_record(bench, {}, resume=False)
    assert second.spend_look("b") == 2
    assert not list(bench.workspace.root.glob(".journal*"))


@pytest.mark.parametrize("resume", [True, False])
def test_looks_are_counted_on_after_a_start_that_was_killed(bench: Workbench, resume: bool) -> None:
    first = _open_record(bench, {}, resume=False)
    first.spend_look("a")
    first.close()
    # killed when the old journal was moved aside and the new one not there yet
    bench.workspace.open(resume=False)
    assert not bench.workspace.journal.exists()
    assert _open_record(bench, {}, resume=resume).looks == 1


def test_a_run_that_is_at_work_is_joined_but_not_replaced(bench: Workbench) -> None:
    parent = Worker(Worker.me().host, os.getppid(), worker._state(os.getppid())[1])
    first = _open_record(bench, {}, resume=False)
    first.amend("owners", lambda _: {parent.key: parent.to_json()})
    with pytest.raises(RecordError, match="another run is at work"):
        _open_record(bench, {}, resume=False)
    joined = _open_record(bench, {}, resume=True)
    assert set(joined.noted("owners")) == {parent.key, Worker.me().key}


def test_the_owner_of_a_run_that_was_killed_is_forgotten(bench: Workbench) -> None:
    first = _open_record(bench, {}, resume=False)
    dead = Worker(Worker.me().host, os.getppid(), "1")
    first.amend("owners", lambda _: {dead.key: dead.to_json()})
    joined = _open_record(bench, {}, resume=True)
    assert set(joined.noted("owners")) == {Worker.me().key}
    _open_record(bench, {}, resume=False)
