import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from autocompress.core.plan import Plan
from autocompress.core.trial import Outcome, Trial
from autocompress.run import waiting
from autocompress.run.record_store import CLAIMS, STUDY, open_record
from autocompress.run.waiting import await_others
from autocompress.system.progress import Deadline, Event
from autocompress.system.workers import Worker
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of
from autocompress.testing.python_processes import child_environment

BUDGETS = {"size_mb": "0.7x", "max_accuracy_drop_pp": 10.0}
TASK = task_of(ramp(400), ramp(1000))
DIES_WITH_A_CLAIM = """
import os, sys
from pathlib import Path
from autocompress.run.record_store import open_record
from autocompress.core.plan import Plan
with open_record(Path(sys.argv[1])).claim(Plan.read(Path(sys.argv[2]))):
    os._exit(9)
"""


@pytest.fixture
def made(tmp_path: Path) -> Stand:
    return Stand(tmp_path, [Scripted("scripted", {"one": Variant(), "two": Variant()})], BUDGETS, TASK, "size")


def plan_of(made: Stand, variant: str) -> Plan:
    (technique,) = made.techniques
    assert isinstance(technique, Scripted)
    return technique.plan(variant)


def test_nobody_is_waited_for_when_nothing_is_claimed(made: Stand) -> None:
    assert not await_others(made.record, Deadline.start(None), lambda event: None)


def test_a_search_waits_for_what_another_worker_has_claimed_and_then_hands_it_out(
    made: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_record(made.run.workspace.journal)
    plan = plan_of(made, "two")
    events: list[Event] = []
    with other.claim(plan) as number:
        assert number is not None

        def ends(_seconds: float) -> None:
            other.finish(Trial(number, plan, Outcome.FAILED, reason="elsewhere"))

        # the other comes to its end while this one sleeps
        monkeypatch.setattr(waiting, "sleep", ends)
        found = list(made.search(events.append).contenders())
    assert [trial.plan for trial in found] == [plan_of(made, "one")]
    assert [event.sentence for event in events if "waiting" in event.sentence] == [
        "waiting for another worker, which is at scripted"
    ]
    assert sorted(made.tried()) == ["one", "two"]


def test_the_plan_of_a_worker_that_dies_meanwhile_is_taken_up(
    made: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_file = tmp_path / "plan.yaml"
    plan_file.write_text(plan_of(made, "two").to_yaml(), encoding="utf-8")
    command = [sys.executable, "-c", DIES_WITH_A_CLAIM, str(made.run.workspace.journal), str(plan_file)]
    assert subprocess.run(command, env=child_environment(), check=False, timeout=60).returncode == 9
    monkeypatch.setattr(waiting, "sleep", lambda seconds: pytest.fail("the dead are not waited for"))
    assert len(list(made.search().contenders())) == 2
    assert sorted(made.tried()) == ["one", "two"]


def test_the_plan_of_a_worker_that_was_killed_before_its_claim_had_a_trial_is_taken_up(made: Stand) -> None:
    dead = Worker(Worker.me().host, 2**22 + 1, "1")
    row = (STUDY, plan_of(made, "one").hash, json.dumps(dead.to_json()), time.time(), False)
    with closing(sqlite3.connect(made.run.workspace.journal)) as database, database:
        columns = "study, plan_hash, owner, heartbeat, ended"
        database.execute(f"insert into {CLAIMS.name} ({columns}) values (?, ?, ?, ?, ?)", row)
    # without a limit it would be proposed again for ever
    made.run.deadline = Deadline.start(60.0)
    search = made.search()
    assert len(list(search.contenders())) == 2
    assert not search.out_of_time
    assert made.tried() == ["one", "two"]


def test_the_deadline_ends_the_wait_and_says_that_time_was_up(made: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    with open_record(made.run.workspace.journal).claim(plan_of(made, "two")):
        made.run.deadline = Deadline.start(3.0)
        search = made.search()
        list(search.contenders())
    assert search.out_of_time


def test_a_plan_that_was_claimed_in_the_meantime_is_left_to_the_other(
    made: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a strategy that does not see the claim yet proposes the claimed plan
    search, other = made.search(), open_record(made.run.workspace.journal)
    plan = plan_of(made, "one")
    with other.claim(plan) as number:
        assert number is not None
        search._try(plan, [])
        assert [trial.outcome for trial in made.record.trials()] == [Outcome.CLAIMED]
