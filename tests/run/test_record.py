import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from autocompress.core.budget import Budget
from autocompress.core.measurement import Conditions, Measurement, Reading
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.record import SCHEMA, ConfirmationNote, Record, RunInputs
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.errors import RecordError
from autocompress.run import record_store
from autocompress.run.record_store import CLAIMS, GRACE_S, open_record
from autocompress.system.workers import Worker
from autocompress.testing.fakes import empty_record
from autocompress.testing.python_processes import child_environment


def plan_of(number: int) -> Plan:
    settings = {"activation": "uint8", "per_channel": True, "samples": number, "share": 0.1}
    return Plan(finish=(Step("int8_static", Stage.PRECISION, settings),))


SIZE_MET = Finding(Budget("size_mb", 2.0), Standing.MET, 1.5, 1.5, 1.5, samples=1)
LATENCY_BROKEN = Finding(Budget("latency_ms", 0.5, relative=True), Standing.EXCEEDED, 0.6, 0.55, 0.65, samples=9)
DROP_UNDECIDED = Finding(Budget("max_accuracy_drop_pp", 1.0), Standing.UNDECIDED, 0.5, -0.1, 1.1, 300, 500)
MEMORY_UNMEASURED = Finding(Budget("memory_mb", 30.0), Standing.UNMEASURED, sentence="was not measured")


def full_trial(number: int, plan: Plan) -> Trial:
    """Every field differs from its default, with numbers that only survive when every bit does."""
    awkward = [1 / 3, -0.0, 5e-324, 1.7976931348623157e308, np.nextafter(1.0, 2.0), np.inf, np.nan]
    conditions = Conditions("ab" * 32, "onnxruntime", {"onnxruntime": "1.31"}, 2, 8, "a machine")
    return Trial(
        number,
        plan,
        Outcome.MEASURED,
        Measurement(
            {
                "latency_ms": Reading("ms", np.random.default_rng(number).random((9, 50))),
                "odd": Reading("?", np.array(awkward)),
            },
            {"size_mb": Reading.one("MB", 0.1 + 0.2)},
            conditions,
        ),
        Verdict((SIZE_MET, LATENCY_BROKEN, DROP_UNDECIDED, MEMORY_UNMEASURED)),
        'latency: 0.6x, "quoted", ünïcode\nand a second line',
        "latency_ms",
        0.25,
        "cd" * 32,
        {"build": 0.1, "latency": 1 / 7},
    )


def samples_of(trial: Trial) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    both = {**trial.measurement.readings, **{f"baseline {k}": v for k, v in trial.measurement.baseline.items()}}
    return {name: (r.unit, r.samples.shape, r.samples.tobytes()) for name, r in both.items()}


def finished(record: Record, plan: Plan, outcome: Outcome = Outcome.MEASURED, *findings: Finding) -> Trial:
    with record.claim(plan) as number:
        trial = Trial(number, plan, outcome, verdict=Verdict(findings))
        record.finish(trial)
    return trial


def stored(path: Path) -> list[FrozenTrial]:
    """The trials as Optuna itself reads them."""
    study = optuna.load_study(study_name="autocompress", storage=f"sqlite:///{path}")
    return study.trials


def claims(path: Path) -> list[dict[str, Any]]:
    """The rows of the claims, as they stand in the database."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"select * from {CLAIMS.name}")]


def change_claim(path: Path, **values: object) -> None:
    """Write into the only claim."""
    assert len(claims(path)) == 1
    columns = ", ".join(f"{name} = ?" for name in values)
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        database.execute(f"update {CLAIMS.name} set {columns}", list(values.values()))


def freeze(path: Path) -> None:
    """What stands in the database after the only worker was held up for long, as by a lid that was closed."""
    change_claim(path, heartbeat=time.time() - GRACE_S - 1)


def note(record: Record, key: str, value: object) -> None:
    record.notes.amend(key, lambda _: value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record without trials."""
    path = tmp_path / "journal.db"
    path.write_bytes(empty_record())
    return path


# trials


def test_a_trial_survives_reopening_bit_for_bit(path: Path) -> None:
    record = open_record(path)
    with record.claim(plan_of(1)) as number:
        written = full_trial(number, plan_of(1))
        record.finish(written)
    record.close()
    for opened in (record, open_record(path)):
        (read,) = opened.trials()
        assert read.number == written.number
        assert read.plan == written.plan
        assert read.verdict == written.verdict
        assert read.measurement.conditions == written.measurement.conditions
        assert samples_of(read) == samples_of(written)
        assert len(samples_of(read)["odd"][2]) == 8 * 7
        for name in ("outcome", "reason", "stopped_by", "fidelity", "artifact_hash", "seconds"):
            assert getattr(read, name) == getattr(written, name), name


def test_trials_come_in_the_order_they_were_claimed(path: Path) -> None:
    record = open_record(path)
    for number in (3, 1, 2):
        finished(record, plan_of(number))
    assert [trial.plan for trial in open_record(path).trials()] == [plan_of(n) for n in (3, 1, 2)]
    assert [trial.number for trial in record.trials()] == [0, 1, 2]


def test_a_new_record_has_no_trials_notes_or_looks(tmp_path: Path) -> None:
    record = open_record(tmp_path / "journal.db")
    assert record.trials() == []
    assert record.notes.read("baseline") is None
    assert record.baseline is None
    assert len(record.looks) == 0
    assert record.release_dead_claims() == 0


def test_two_records_on_one_database_see_each_others_trials(path: Path) -> None:
    one, other = open_record(path), open_record(path)
    finished(one, plan_of(1))
    with other.claim(plan_of(2)):
        assert [trial.outcome for trial in one.trials()] == [Outcome.MEASURED, Outcome.CLAIMED]
    assert len(one.trials()) == 1


def test_studies_of_one_database_do_not_mix(path: Path) -> None:
    finished(open_record(path, "one"), plan_of(1))
    assert open_record(path, "other").trials() == []


# claims


def test_a_claim_shows_as_claimed_while_it_lasts_and_then_as_what_came_of_it(path: Path) -> None:
    record = open_record(path)
    with record.claim(plan_of(1)) as number:
        (claimed,) = open_record(path).trials()
        assert (claimed.number, claimed.plan, claimed.outcome) == (number, plan_of(1), Outcome.CLAIMED)
        record.finish(Trial(number, plan_of(1), Outcome.FAILED, reason="broke"))
    (after,) = record.trials()
    assert (after.outcome, after.reason) == (Outcome.FAILED, "broke")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_claim_that_an_exception_ends_is_given_back(path: Path, error: type[BaseException]) -> None:
    record = open_record(path)
    with pytest.raises(error), record.claim(plan_of(1)):
        raise error
    assert record.trials() == []
    assert open_record(path).trials() == []
    assert finished(record, plan_of(1)).number == record.trials()[0].number


def test_a_claim_that_is_left_without_an_end_is_given_back(path: Path) -> None:
    record = open_record(path)
    with record.claim(plan_of(1)):
        assert len(record.trials()) == 1
    assert record.trials() == []


def test_a_claim_of_this_process_is_not_released_while_it_works(path: Path) -> None:
    record = open_record(path)
    with record.claim(plan_of(1)):
        assert open_record(path).release_dead_claims() == 0
        assert [trial.outcome for trial in record.trials()] == [Outcome.CLAIMED]


def test_a_plan_that_is_claimed_or_finished_is_not_claimed_again(path: Path) -> None:
    one, other = open_record(path), open_record(path)
    with one.claim(plan_of(1)) as number, other.claim(plan_of(1)) as second, other.claim(plan_of(2)) as third:
        assert (number, second) == (0, None)
        assert third is not None
        one.finish(Trial(0, plan_of(1), Outcome.FAILED, reason="broke"))
    with other.claim(plan_of(1)) as again, other.claim(plan_of(2)) as given_back:
        assert again is None
        assert given_back is not None
    assert [trial.outcome for trial in one.trials()] == [Outcome.FAILED]


def test_a_result_that_comes_after_the_claim_was_given_to_another_does_not_count(path: Path) -> None:
    record = open_record(path)
    with record.claim(plan_of(1)) as number:
        assert number is not None
        freeze(path)
        other = open_record(path)
        assert other.release_dead_claims() == 1
        taken = finished(other, plan_of(1), Outcome.STOPPED)
        record.finish(Trial(number, plan_of(1), Outcome.MEASURED))
        assert [trial.to_json() for trial in record.trials()] == [taken.to_json()]
    # nor is the other's claim given back when this one wakes up
    assert [trial.to_json() for trial in record.trials()] == [taken.to_json()]
    with record.claim(plan_of(1)) as again:
        assert again is None


def test_a_result_that_comes_after_the_claim_was_given_back_does_not_count(path: Path) -> None:
    record = open_record(path)
    with record.claim(plan_of(1)) as number:
        assert number is not None
        freeze(path)
        assert open_record(path).release_dead_claims() == 1
        record.finish(Trial(number, plan_of(1), Outcome.MEASURED))
        assert record.trials() == []
    assert claims(path) == []
    assert finished(record, plan_of(1), Outcome.STOPPED).number == record.trials()[0].number == 1


def test_a_worker_that_wakes_up_neither_ends_nor_gives_back_the_claim_of_the_one_that_took_its_plan(
    path: Path, tmp_path: Path
) -> None:
    record = open_record(path)
    with ExitStack() as working:
        with record.claim(plan_of(1)) as number:
            assert number is not None
            freeze(path)
            assert open_record(path).release_dead_claims() == 1
            other = working.enter_context(worker_with_claim(path, tmp_path))
            record.finish(Trial(number, plan_of(1), Outcome.MEASURED))
        (claim,) = claims(path)
        assert Worker.from_json(json.loads(claim["owner"])).pid == other.pid
        assert not claim["ended"]
        assert [(trial.number, trial.outcome) for trial in record.trials()] == [(claim["trial"], Outcome.CLAIMED)]
        assert claim["trial"] != number


def test_a_thread_that_wakes_up_does_not_give_back_the_claim_of_another_thread(path: Path) -> None:
    record = open_record(path)
    with ExitStack() as working:
        with record.claim(plan_of(1)) as number:
            freeze(path)
            assert record.release_dead_claims() == 1
            other = working.enter_context(record.claim(plan_of(1)))
        assert [(claim["trial"], claim["ended"]) for claim in claims(path)] == [(other, 0)]
        assert other not in (None, number)
        assert [trial.number for trial in record.trials()] == [other]


def test_leaving_a_claim_that_is_anothers_by_now_leaves_it(path: Path) -> None:
    record, elsewhere = open_record(path), Worker("elsewhere", 7, "1")
    with record.claim(plan_of(1)) as number:
        assert number is not None
        change_claim(path, owner=json.dumps(elsewhere.to_json()))
        record.finish(Trial(number, plan_of(1), Outcome.MEASURED))
    (left,) = claims(path)
    assert (left["plan_hash"], json.loads(left["owner"]), left["ended"]) == (plan_of(1).hash, elsewhere.to_json(), 0)
    assert record.trials() == []


def test_a_heartbeat_is_written_for_as_long_as_the_claim_is_ones_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_store, "HEARTBEAT_S", 0.05)
    with open_record(path).claim(plan_of(1)):
        change_claim(path, heartbeat=0.0)
        until(lambda: claims(path)[0]["heartbeat"] > 0.0)
        change_claim(path, heartbeat=0.0, owner=json.dumps(Worker("elsewhere", 7, "1").to_json()))
        time.sleep(0.5)
        assert claims(path)[0]["heartbeat"] == 0.0


def until(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("age", "released"), [(GRACE_S - 20, 0), (GRACE_S + 1, 1)])
def test_the_claim_of_another_host_is_released_by_the_age_of_its_heartbeat(
    path: Path, worker: subprocess.Popen[str], age: float, released: int
) -> None:
    worker.kill()
    worker.wait()
    # nobody here can tell whether a process of another host lives
    owner = json.dumps(Worker("elsewhere", worker.pid, "1").to_json())
    change_claim(path, owner=owner, heartbeat=time.time() - age)
    record = open_record(path)
    assert record.release_dead_claims() == released
    assert len(record.trials()) == len(claims(path)) == 1 - released
    with record.claim(plan_of(1)) as again:
        assert (again is not None) == bool(released)


def test_a_claim_whose_worker_was_killed_before_it_had_a_trial_is_released(
    path: Path, worker: subprocess.Popen[str]
) -> None:
    worker.kill()
    worker.wait()
    change_claim(path, trial=None)
    record = open_record(path)
    assert record.release_dead_claims() == 1
    assert claims(path) == []
    with record.claim(plan_of(1)) as again:
        assert again is not None


def test_what_a_worker_wrote_down_before_it_was_killed_stands(path: Path, worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    (claimed,) = stored(path)
    written = Trial(0, plan_of(1), Outcome.STOPPED, reason="too large", stopped_by="size_mb")
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    storage.set_trial_user_attr(claimed._trial_id, "trial", json.dumps(written.to_json()))
    record = open_record(path)
    assert record.release_dead_claims() == 0
    assert [trial.to_json() for trial in record.trials()] == [written.to_json()]
    assert [trial.state for trial in stored(path)] == [TrialState.PRUNED]
    with record.claim(plan_of(1)) as again:
        assert again is None


TOGETHER = """
import json, sys, threading
from pathlib import Path
from autocompress.run.record_store import open_record
from autocompress.core.plan import Plan, Stage, Step
record, plan, name = open_record(Path(sys.argv[1])), Plan.read(Path(sys.argv[2])), sys.argv[3]
print("ready", flush=True)
input()
looks, ends = [], threading.Event()
def work(place):
    for number in range(5):
        looks.append(record.spend_look({"what": f"{name} {place} {number}"}))
        step = Step("block_dropping", Stage.STRUCTURE, {"blocks": f"{name} {place} {number}"})
        record.keep_structure("first", Plan(((step,),)), [1.0])
    with record.claim(plan) as number:
        print(json.dumps(number), flush=True)
        # held until the test has heard of all
        ends.wait()
threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
[thread.start() for thread in threads]
input()
ends.set()
[thread.join() for thread in threads]
print(json.dumps(looks), flush=True)
"""


def test_workers_in_processes_and_threads_never_take_the_same_look_or_plan(path: Path, tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.yaml"
    plan_file.write_text(plan_of(1).to_yaml())
    commands = [[sys.executable, "-c", TOGETHER, str(path), str(plan_file), name] for name in "ab"]
    workers = [
        subprocess.Popen(command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    assert [said_by(process) for process in workers] == ["ready", "ready"]
    answer_all(workers)
    # two threads each: one of the four has the plan
    claims = [json.loads(said_by(process)) for process in workers for _ in range(2)]
    assert sorted(number is None for number in claims) == [False, True, True, True]
    answer_all(workers)
    looks = [look for process in workers for look in json.loads(process.communicate(timeout=60)[0])]
    assert sorted(looks) == list(range(1, 21))
    record = open_record(path)
    assert len(record.looks) == 20
    assert len(record.notes.read("structures first")) == 20
    assert record.trials() == []


def said_by(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer_all(workers: list[subprocess.Popen[str]]) -> None:
    for process in workers:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


CLAIM_AND_WAIT = """
import sys, time
from pathlib import Path
from autocompress.run.record_store import open_record
from autocompress.core.plan import Plan
record = open_record(Path(sys.argv[1]))
with record.claim(Plan.read(Path(sys.argv[2]))):
    print("claimed", flush=True)
    time.sleep(60)
"""


@contextmanager
def worker_with_claim(path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a claim of `plan_of(1)`."""
    plan_file = tmp_path / "plan.yaml"
    plan_file.write_text(plan_of(1).to_yaml())
    command = [sys.executable, "-c", CLAIM_AND_WAIT, str(path), str(plan_file)]
    with subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


@pytest.fixture
def worker(path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with worker_with_claim(path, tmp_path) as process:
        yield process


def test_the_claim_of_a_killed_process_is_released_at_once_and_its_plan_can_be_claimed_again(
    path: Path, worker: subprocess.Popen[str]
) -> None:
    record = open_record(path)
    done = finished(record, plan_of(2), Outcome.STOPPED, LATENCY_BROKEN)
    # a living worker keeps its claim
    assert record.release_dead_claims() == 0
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    # nobody gave the claim back
    assert [trial.outcome for trial in record.trials()] == [Outcome.CLAIMED, Outcome.STOPPED]
    resumed = open_record(path)
    assert resumed.release_dead_claims() == 1
    assert [trial.to_json() for trial in resumed.trials()] == [done.to_json()]
    assert resumed.release_dead_claims() == 0
    finished(resumed, plan_of(1))
    assert [trial.plan for trial in resumed.trials()] == [plan_of(2), plan_of(1)]


def test_the_claim_of_a_killed_process_whose_number_is_in_use_again_is_released(
    path: Path, worker: subprocess.Popen[str]
) -> None:
    # a container that starts again gives its program the same number
    worker.kill()
    worker.wait()
    (claimed,) = claims(path)
    change_claim(path, owner=json.dumps({**json.loads(claimed["owner"]), "pid": os.getpid()}))
    assert open_record(path).release_dead_claims() == 1


def test_finished_trials_are_left_as_they_are_by_reopening_and_releasing(path: Path) -> None:
    record = open_record(path)
    outcomes = [Outcome.MEASURED, Outcome.STOPPED, Outcome.REFUSED, Outcome.FAILED]
    for number, outcome in enumerate(outcomes):
        finished(record, plan_of(number), outcome, SIZE_MET, LATENCY_BROKEN)
    before = [trial.to_json() for trial in record.trials()]
    record.close()
    again = open_record(path)
    again.release_dead_claims()
    assert [trial.outcome for trial in again.trials()] == outcomes
    assert [trial.to_json() for trial in again.trials()] == before


# notes and looks


def test_a_note_is_any_json_value(path: Path) -> None:
    notes = {
        "zero": 0,
        "third": 1 / 3,
        "yes": True,
        "null": None,
        "text": "ünïcode",
        "deep": {"a": [{}]},
        "long": "x" * 300_000,
    }
    record = open_record(path)
    for key, value in notes.items():
        note(record, key, value)
    again = open_record(path)
    assert {key: again.notes.read(key) for key in notes} == notes
    assert again.notes.read("other") is None


def test_a_note_replaces_the_one_before(path: Path) -> None:
    record = open_record(path)
    note(record, "elapsed", 1.0)
    note(record, "elapsed", 2.0)
    assert open_record(path).notes.read("elapsed") == 2.0


def test_what_is_no_json_is_not_noted(path: Path) -> None:
    record = open_record(path)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            note(record, "fact", value)
    assert record.notes.read("fact") is None


def test_a_record_says_whose_run_it_is_once_a_run_has_begun(path: Path) -> None:
    record = open_record(path)
    assert (record.schema, record.identity) == (None, {})
    inputs = RunInputs({"name": "local"}, "ab12", "a machine", ["input: float32 [1, 2]"], {"data": "digits"})
    record.begin({"model": "cd"}, inputs, [{"what": "a", "time": 1.0}])
    again = open_record(path)
    assert (again.schema, again.identity, again.inputs) == (SCHEMA, {"model": "cd"}, inputs)
    assert again.spend_look({"what": "b"}) == 2


def test_what_is_measured_later_is_added_to_what_was_measured_later_before(path: Path) -> None:
    record = open_record(path)
    for name, value in (("size_mb", 1.0), ("latency_ms", 2.0), ("size_mb", 3.0)):
        record.add_later_measurement(7, Measurement({name: Reading.one("", value)}))
    record.add_later_measurement(8, Measurement({"size_mb": Reading.one("", 4.0)}))
    later = open_record(path).later_measurements
    found = {number: {name: r.value for name, r in taken.readings.items()} for number, taken in later.items()}
    assert found == {7: {"size_mb": 3.0, "latency_ms": 2.0}, 8: {"size_mb": 4.0}}


def test_the_first_confirmation_of_a_plan_stands_and_those_for_other_budgets_are_kept_apart(path: Path) -> None:
    record = open_record(path)
    first, second = (
        ConfirmationNote(full_trial(n, plan_of(1)).measurement, Verdict((SIZE_MET,)), {"look": n}) for n in (1, 2)
    )
    record.add_confirmation_for_other_budgets(plan_of(1), second)
    assert record.confirmation(plan_of(1)) is None
    for one in (first, second):
        record.keep_confirmation(plan_of(1), one)
    record.add_confirmation_for_other_budgets(plan_of(1), first)
    again = open_record(path)
    stands = again.confirmation(plan_of(1))
    assert stands is not None
    assert (stands.certificate, stands.verdict) == (first.certificate, first.verdict)
    assert stands.measurement.to_json() == first.measurement.to_json()
    assert [one.certificate["look"] for one in again.confirmations_for_other_budgets(plan_of(1))] == [2, 1]
    assert again.confirmed_plans == [plan_of(1).hash]
    assert again.confirmations_for_other_budgets(plan_of(2)) == []


def test_looks_are_counted_from_one_over_all_openings(path: Path) -> None:
    record = open_record(path)
    assert [record.spend_look({"what": what}) for what in "ab"] == [1, 2]
    record.close()
    again = open_record(path)
    assert len(again.looks) == 2
    assert again.spend_look({"what": "c"}) == 3
    assert [look["what"] for look in again.looks] == ["a", "b", "c"]


def test_to_look_at_the_same_file_again_costs_nothing(path: Path) -> None:
    record = open_record(path)
    assert [record.spend_look({"what": what}) for what in ("a", "b", "a", "b")] == [1, 2, 1, 2]
    assert len(record.looks) == 2


def test_a_record_is_busy_for_others_while_its_owner_lives(path: Path) -> None:
    record = open_record(path)
    assert not record.busy
    record.own()
    assert not record.busy
    script = (
        "from pathlib import Path\nfrom autocompress.run.record_store import open_record\n"
        f"print(open_record(Path({str(path)!r})).busy)"
    )
    seen = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()]
    record.release()
    seen += [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()]
    assert seen == ["True", "False"]


OWN = """
import sys
from pathlib import Path
from autocompress.run.record_store import open_record
open_record(Path(sys.argv[1])).own()
print("owns", flush=True)
input()
"""


def test_a_record_is_busy_while_any_of_its_owners_lives(path: Path) -> None:
    record = open_record(path)
    record.own()
    command = [sys.executable, "-c", OWN, str(path)]
    pipes = {"env": child_environment(), "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "owns\n"
        assert record.busy
        # the second is still at work when the first goes
        record.release()
        assert record.busy
        other.kill()
        other.wait()
    assert not record.busy


def test_a_note_that_several_write_keeps_what_each_of_them_wrote_first(path: Path) -> None:
    one, other = open_record(path), open_record(path)
    assert one.keep_structure("first", plan_of(1), [1.0]) == [1.0]
    assert other.keep_structure("first", plan_of(2), None) is None
    assert other.keep_structure("first", plan_of(1), [3.0]) == [1.0]
    assert other.keep_structure("first", plan_of(2), [3.0]) is None
    assert one.notes.read("structures first") == {plan_of(1).hash: [1.0], plan_of(2).hash: None}
    assert [one.structure("first", plan_of(n)) for n in (1, 2, 3)] == [(True, [1.0]), (True, None), (False, None)]
    assert one.structure("second", plan_of(1)) == (False, None)


def test_time_that_was_spent_never_grows_less(path: Path) -> None:
    record = open_record(path)
    for seconds in (1.0, 5.0, 2.0):
        record.spend_time(seconds)
    assert record.elapsed == 5.0


def test_a_look_is_written_down_before_it_is_taken(path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from autocompress.run.record_store import open_record
open_record(Path({str(path)!r})).spend_look({{"what": "a plan"}})
os._exit(1)  # killed while it looked
"""
    done = subprocess.run([sys.executable, "-c", script], env=child_environment(), timeout=60, check=False)
    assert done.returncode == 1
    assert len(open_record(path).looks) == 1


# files that are no record


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database " * 100)


def _cut_off(path: Path) -> None:
    path.write_bytes(empty_record()[:100_000])


def _overwritten(path: Path) -> None:
    record = open_record(path)
    note(record, "fact", "x" * 100_000)
    record.close()
    content = bytearray(path.read_bytes())
    content[5000:60_000] = b"\xff" * 55_000
    path.write_bytes(content)


def _other_tables(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table studies (x int)")


def _other_tables_and_ours(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table studies (x int)")
        database.execute("create table autocompress_notes (x int)")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        _garbage,
        _cut_off,
        _folder,
        _overwritten,
        _other_tables,
        _other_tables_and_ours,
    ],
)
def test_a_file_that_is_no_whole_record_is_an_error_with_its_path(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "journal.db"
    damage(path)
    with pytest.raises(RecordError) as caught:
        open_record(path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_record_in_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        open_record(tmp_path / "missing" / "journal.db")


def test_a_record_of_an_earlier_version_is_refused_with_what_to_do_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    # trials and notes were in Optuna's own tables
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="autocompress")
    study.set_user_attr("elapsed", "1.0")
    before = path.read_bytes()
    with pytest.raises(RecordError, match="written by an earlier version of autocompress") as caught:
        open_record(path)
    assert caught.value.where == str(path)
    assert "--out" in caught.value.hint
    assert caught.value.exit_code == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "ümlaut",
        "a#b",
        "what?",
        "100%20",
        "run{1}",
    ],
)
def test_the_record_is_the_file_that_was_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    finished(open_record(folder / "journal.db"), plan_of(1))
    assert (folder / "journal.db").exists()
    assert len(open_record(folder / "journal.db").trials()) == 1


# what Optuna sees


def test_optuna_sees_a_constraint_for_every_finding(path: Path) -> None:
    findings = (SIZE_MET, LATENCY_BROKEN, DROP_UNDECIDED, MEMORY_UNMEASURED)
    finished(open_record(path), plan_of(1), Outcome.MEASURED, *findings)
    (trial,) = stored(path)
    assert set(trial.constraints) == {f.budget.metric for f in findings}
    assert trial.constraints["size_mb"] == pytest.approx(-0.25)
    assert trial.constraints["latency_ms"] == pytest.approx(0.2)
    assert trial.constraints["max_accuracy_drop_pp"] == pytest.approx(-0.5)
    # what was not measured is broken
    assert trial.constraints["memory_mb"] > 0
    assert trial.state is TrialState.COMPLETE
    assert trial.value == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(Outcome.STOPPED, TrialState.PRUNED), (Outcome.REFUSED, TrialState.FAIL), (Outcome.FAILED, TrialState.FAIL)],
)
def test_optuna_sees_as_complete_only_what_was_measured(path: Path, outcome: Outcome, state: TrialState) -> None:
    finished(open_record(path), plan_of(1), outcome, SIZE_MET)
    assert [trial.state for trial in stored(path)] == [state]


@pytest.mark.parametrize("findings", [(), (MEMORY_UNMEASURED,)])
def test_a_trial_of_which_nothing_is_known_is_not_complete_to_optuna(path: Path, findings: tuple[Finding, ...]) -> None:
    finished(open_record(path), plan_of(1), Outcome.MEASURED, *findings)
    assert [trial.state for trial in stored(path)] == [TrialState.FAIL]
    assert [trial.outcome for trial in open_record(path).trials()] == [Outcome.MEASURED]


def test_a_trial_whose_training_was_cut_ends_as_the_plan_that_was_trained(path: Path) -> None:
    record = open_record(path)
    step = Step("distillation", Stage.RECOVERY, {"steps": 100})
    asked, taken = (Plan(((one,),)) for one in (step, replace(step, settings={"steps": 100, "cuts": "20:50"})))
    assert taken.planned == asked
    assert taken.rounds[0][0].steps_taken == 50
    with record.claim(asked) as number:
        assert number is not None
        record.finish(Trial(number, taken, Outcome.MEASURED))
    assert [trial.plan for trial in record.trials()] == [taken]
    # it is not claimed again as it was asked for
    with record.claim(asked) as again:
        assert again is None
