"""The ledger of looks: over output folders, changed training sets, processes, and when it cannot be kept."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from whole_runs import BUDGETS, Runs

from autocompress.core.task import Task
from autocompress.data.repeated_items import examine
from autocompress.run import ledger
from autocompress.run.confirm import Confirmation, confirm
from autocompress.run.looks import look_sentences
from autocompress.run.record_store import open_record
from autocompress.statistics.bounds import spend
from autocompress.testing.fakes import Scripted, Stand, Variant, items_of, ramp, task_of

TASK = task_of(ramp(300), ramp(1000))
HOLDOUT = examine(TASK).holdout_hash
RUN = Path("/runs/a")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ledger's folder."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "state"))
    found = ledger.folder()
    assert found == tmp_path / "state" / "looks"
    return found


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


def confirmation(folder: Path, kilobytes: int, task: Task = TASK) -> Confirmation:
    """The confirmation of a file of this size by a run in this folder."""
    made = Stand(folder, [Scripted("scripted", {"good": Variant(kilobytes)})], BUDGETS, task)
    check = examine(task)
    made.run.data_check, made.run.task = check, replace(task, left_out=check.left_out)
    (technique,) = made.techniques
    assert isinstance(technique, Scripted)
    found = confirm(made.run, technique.plan("good"))
    made.record.close()
    return found


def look_at(folder: Path, kilobytes: int, task: Task = TASK) -> int:
    """The number of the look of that confirmation."""
    number: int = confirmation(folder, kilobytes, task).certificate["look"]
    return number


def whats(place: Path) -> list[str]:
    return [one["what"] for one in ledger.looks_at(place, HOLDOUT)]


# looks of several folders


def test_looks_count_over_two_output_folders_and_are_named(place: Path, runs: Runs) -> None:
    results = []
    for name in ("a", "b"):
        # another file each, so that to look at it tells something new
        runs.variants = {"good": Variant(kilobytes=20 + len(results))}
        results.append(runs.start(name, TASK))
    first, second = (dict(result.certificate or {}) for result in results)
    assert (first["look"], second["look"]) == (1, 2)
    assert second["accuracy_error_probability"] == pytest.approx(spend(0.05, 2))
    (earlier,) = second["earlier_looks"]
    assert (earlier["what"], earlier["run"]) == (first["artifact_sha256"], str(runs.root / "a"))
    (sentence,) = [one for one in results[1].explanation if "look" in one]
    assert sentence.startswith("This was look 2 at these holdout items")
    assert str(runs.root / "a") in sentence
    assert not [one for one in results[0].explanation if "look" in one]
    assert sentence.split(";")[0] in (results[1].folder / "report.html").read_text(encoding="utf-8")


def test_looks_count_when_other_items_were_trained_on_and_chosen_with(place: Path, tmp_path: Path) -> None:
    assert look_at(tmp_path / "a", 20) == 1
    assert look_at(tmp_path / "b", 21, replace(TASK, train=items_of(ramp(50)))) == 2
    # every item was trained on here, so none is left to confirm with
    assert look_at(tmp_path / "c", 22, replace(TASK, train=TASK.test, val=items_of(ramp(70)))) == 3


def test_other_holdout_items_have_looks_of_their_own(place: Path, tmp_path: Path) -> None:
    assert look_at(tmp_path / "a", 20) == look_at(tmp_path / "b", 21, task_of(ramp(300), ramp(1001))) == 1
    assert len(list(place.iterdir())) == 2


def test_to_look_at_the_same_file_from_another_folder_costs_nothing(place: Path, tmp_path: Path) -> None:
    assert look_at(tmp_path / "a", 20) == look_at(tmp_path / "b", 20) == 1
    assert len(whats(place)) == 1


def test_resolve_counts_in_the_ledger(place: Path, runs: Runs) -> None:
    runs.variants = {"rough": Variant(kilobytes=10, wrong_below=0.03), "exact": Variant(kilobytes=20, latency_ms=5.5)}
    runs.start("run", TASK, objective="latency")
    ledger.spend(place, HOLDOUT, ledger.look("of another run", RUN))
    resolved = runs.resolve("run", TASK, {"max_accuracy_drop_pp": 0.9})
    assert resolved.met
    assert resolved.certificate is not None
    assert resolved.certificate["look"] == 3 == len(whats(place))


def test_a_folder_that_came_from_another_machine_brings_its_looks(place: Path, tmp_path: Path) -> None:
    look_at(tmp_path / "a", 20)
    before = whats(place)
    (place / f"{HOLDOUT}.jsonl").unlink()
    assert look_at(tmp_path / "a", 21) == 2
    assert whats(place)[:1] == before
    assert look_at(tmp_path / "b", 22) == 3


def test_the_record_of_a_run_holds_the_looks_of_the_ledger_as_well(place: Path, tmp_path: Path) -> None:
    look_at(tmp_path / "a", 20)
    look_at(tmp_path / "b", 21)
    record = open_record(tmp_path / "b" / "journal.db")
    assert [one["what"] for one in record.looks] == whats(place)
    record.close()


def test_a_budget_finer_than_the_looks_leave_room_for_is_told_before_anything_is_tried(place: Path, runs: Runs) -> None:
    for number in range(30):
        ledger.spend(place, HOLDOUT, ledger.look(f"file {number}", RUN))
    result = runs.start("run", TASK)
    assert result.certificate is not None
    assert result.certificate["look"] == 31
    answers = json.dumps(result.search_space.to_json())
    assert re.search("1000 holdout items can show a drop of [0-9.]+ pp at best after 30 looks", answers)


# without a ledger


def test_without_a_ledger_the_folder_counts_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ledger.VARIABLE, "off")
    first = confirmation(tmp_path, 20).certificate
    assert look_sentences(first) == [
        "The ledger of looks is off (AUTOCOMPRESS_STATE=off): looks at these items that were taken in other folders "
        "are not counted."
    ]
    assert (first["look"], look_at(tmp_path, 21)) == (1, 2)


@pytest.mark.parametrize("damage", ["a file in the way", "no right to read it"])
def test_a_ledger_that_cannot_be_kept_is_told_and_the_record_counts(place: Path, tmp_path: Path, damage: str) -> None:
    if damage == "a file in the way":
        place.parent.mkdir()
        place.write_text("in the way")
    else:
        # root may read whatever it has no right to, but no folder as a file
        (place / f"{HOLDOUT}.jsonl").mkdir(parents=True)
    certificate = confirmation(tmp_path / "run", 20).certificate
    assert certificate["look"] == 1
    (sentence,) = look_sentences(certificate)
    assert sentence.startswith("The ledger of looks cannot be kept (")
    assert str(place) in sentence
    assert look_at(tmp_path / "run", 21) == 2


# the file


def test_a_line_that_cannot_be_read_counts_as_a_look_and_the_next_begins_anew(place: Path) -> None:
    ledger.spend(place, "h", ledger.look("a", RUN))
    with (place / "h.jsonl").open("ab") as file:
        file.write(b'{"what": "b", "ti')
    looks = ledger.spend(place, "h", ledger.look("c", RUN))
    assert [one["what"] for one in looks] == ["a", "unreadable line 1", "c"]
    assert ledger.looks_at(place, "h") == looks


def test_known_looks_are_written_first_and_each_file_once(place: Path) -> None:
    taken, known = ledger.look("b", RUN), [{"what": "a", "time": 1.0}, {"what": "b", "time": 2.0}]
    ledger.spend(place, "h", ledger.look("z", RUN))
    assert [one["what"] for one in ledger.spend(place, "h", taken, known)] == ["z", "a", "b"]
    assert len(ledger.spend(place, "h", taken, known)) == 3


def test_the_place_of_the_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(ledger.VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert ledger.folder() == tmp_path / "autocompress" / "looks"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ledger.folder() == tmp_path / ".local" / "state" / "autocompress" / "looks"
    monkeypatch.setenv(ledger.VARIABLE, "off")
    assert ledger.folder() is None


SPENDING = """
import json, sys
from pathlib import Path
from autocompress.run import ledger
place, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
input()
numbers = [len(ledger.spend(place, "h", ledger.look(f"{name} {i}", Path(name)))) for i in range(40)]
print(json.dumps(numbers), flush=True)
"""


def test_two_processes_at_once_never_take_the_same_number(place: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDING, str(place), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    numbers = [number for one in processes for number in json.loads(one.communicate(timeout=60)[0])]
    assert sorted(numbers) == list(range(1, 81))
    assert len({one["what"] for one in ledger.looks_at(place, "h")}) == 80
