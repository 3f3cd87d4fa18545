import os
from pathlib import Path

import pytest

from autocompress.core.record import Record
from autocompress.errors import RecordError
from autocompress.evaluation.run import Run
from autocompress.run.setup import identity_of, inputs_of, record_in
from autocompress.system import workers as worker
from autocompress.system.workers import Worker
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of

TASK = task_of(ramp(40), ramp(100))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in a folder with its baseline and without a record."""
    made = Stand(tmp_path, [Scripted("scripted", {"one": Variant()})], {"size_mb": "0.7x"}, TASK)
    made.run.builder.export_baseline(tmp_path)
    made.record.close()
    made.run.workspace.journal.unlink()
    return made.run


def opened(run: Run, *, resume: bool) -> Record:
    """The run's record as `open_run` opens it."""
    identity = identity_of(run.profile, run.task, run.baseline)
    inputs = inputs_of(run.profile, run.task, run.builder, run.tools, {})
    return record_in(run.workspace, identity, inputs, resume=resume)


def test_a_new_run_goes_on_counting_the_looks_at_the_same_data(run: Run) -> None:
    first = opened(run, resume=False)
    first.spend_look("a")
    first.close()
    second = opened(run, resume=False)
    assert second.spend_look("b") == 2
    assert not list(run.workspace.root.glob(".journal*"))


@pytest.mark.parametrize("resume", [True, False])
def test_looks_are_counted_on_after_a_start_that_was_killed(run: Run, resume: bool) -> None:
    first = opened(run, resume=False)
    first.spend_look("a")
    first.close()
    # killed when the old journal was moved aside and the new one not there yet
    run.workspace.open(resume=False)
    assert not run.workspace.journal.exists()
    assert len(opened(run, resume=resume).looks) == 1


def test_a_run_that_is_at_work_is_joined_but_not_replaced(run: Run) -> None:
    parent = Worker(Worker.me().host, os.getppid(), worker._state(os.getppid())[1])
    first = opened(run, resume=False)
    first.notes.amend("owners", lambda _: {parent.key: parent.to_json()})
    with pytest.raises(RecordError, match="another run is at work"):
        opened(run, resume=False)
    joined = opened(run, resume=True)
    assert set(joined.owners) == {parent.key, Worker.me().key}


def test_the_owner_of_a_run_that_was_killed_is_forgotten(run: Run) -> None:
    first = opened(run, resume=False)
    dead = Worker(Worker.me().host, os.getppid(), "1")
    first.notes.amend("owners", lambda _: {dead.key: dead.to_json()})
    joined = opened(run, resume=True)
    assert set(joined.owners) == {Worker.me().key}
    opened(run, resume=False)


def test_a_run_of_another_version_is_not_resumed(run: Run) -> None:
    first = opened(run, resume=False)
    first.notes.amend("schema", lambda _: 2)
    first.close()
    with pytest.raises(RecordError, match="has schema 2, this version reads 3"):
        opened(run, resume=True)
