"""`resolve` on scripted runs: what is judged again, what is measured, what costs a look, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from autocompress import api
from autocompress.core.plan import Plan
from autocompress.core.record import Record
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.core.trial import Trial
from autocompress.core.verdict import Standing, Status
from autocompress.errors import ArtifactError, AutocompressError, DataError, DeviceError, RecordError, UsageError
from autocompress.report.files import write_files
from autocompress.resolution import resolve as resolution
from autocompress.resolution import shortlist, stored_run
from autocompress.run.record_store import open_record
from autocompress.run.result import Result
from autocompress.run.setup import identity_of, inputs_of
from autocompress.statistics.bounds import spend
from autocompress.system.workspace import RESULT_FILES
from autocompress.testing.fakes import (
    MACHINE,
    ExportedOnce,
    FakeDevice,
    Scripted,
    Stand,
    Variant,
    ramp,
    task_of,
    variants,
)

TASK = task_of(ramp(300), ramp(1000))
# by the run's budgets: too often wrong, the answer, too slow (so never scored), too large (so never timed)
VARIANTS = {
    "rough": Variant(kilobytes=5, latency_ms=2.0, wrong_below=0.1),
    "fair": Variant(kilobytes=10, latency_ms=4.0, wrong_below=0.02),
    "exact": Variant(kilobytes=20, latency_ms=7.0),
    "dies": Variant(kilobytes=30, dies=True),
}
BUDGETS: Mapping[str, float | str] = {"size_mb": "0.7x", "latency_ms": "0.5x", "max_accuracy_drop_pp": 5.0}
Resolve = Callable[..., Result]


def scripted() -> Scripted:
    return Scripted("scripted", VARIANTS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose data came from Python."""
    return finish(tmp_path_factory.mktemp("finished") / "run")


def finish(folder: Path, items: str = "all") -> Path:
    stand = Stand(folder, [scripted()], BUDGETS, TASK, objective="latency", items=items)
    run = stand.run
    identity = identity_of(run.profile, run.task, run.baseline, run.tools, run.example)
    stand.record.begin(identity, inputs_of(run.profile, run.task, run.builder, run.tools, {}))
    result = stand.result()
    write_files(result)
    stand.record.close()
    assert result.status is Status.MET
    assert answer(result) == "fair"
    assert [(*variants([trial.plan]), trial.stopped_by) for trial in result.history] == [
        ("rough", "max_accuracy_drop_pp"), ("fair", ""), ("exact", "latency_ms"), ("dies", "size_mb"),
    ]  # fmt: skip
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """The device of the scripted tools, which stand in the place of the real ones."""
    device = FakeDevice()
    monkeypatch.setattr(stored_run, "tools_of", lambda profile: Tools(ExportedOnce(), device, [scripted()]))
    return device


@pytest.fixture
def resolve(folder: Path, device: FakeDevice) -> Resolve:
    """`resolve` of that folder; with the run's data unless others, or None, are given."""

    def ask(data: Any = TASK, objective: str | None = None, **budgets: float | str) -> Result:
        return api.resolve(folder, budgets=budgets, objective=objective, data=data)

    return ask


def answer(result: Result) -> str:
    return variants([result.plan])[0]


def note(folder: Path, key: str, value: Any) -> None:
    record = open_record(folder / "journal.db")
    record.notes.amend(key, lambda _: value)
    record.close()


def note_input(folder: Path, name: str, value: Any) -> None:
    """One of the inputs that the run wrote down, changed."""
    record = open_record(folder / "journal.db")
    record.notes.amend("inputs", lambda inputs: {**inputs, name: value})
    record.close()


def looks(folder: Path) -> int:
    record = open_record(folder / "journal.db")
    try:
        return len(record.looks)
    finally:
        record.close()


def trial_of(folder: Path, name: str) -> Trial:
    record = open_record(folder / "journal.db")
    try:
        return next(trial for trial in record.trials() if variants([trial.plan]) == [name])
    finally:
        record.close()


def artifact_of(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / trial_of(folder, name).plan.hash / "model.onnx"


# answers


def test_looser_budgets_are_met_by_a_cheaper_file_at_the_price_of_a_look(folder: Path, resolve: Resolve) -> None:
    result = resolve(max_accuracy_drop_pp=20)
    assert (result.status, answer(result)) == (Status.MET, "rough")
    assert result.certificate is not None
    assert result.certificate["look"] == looks(folder) == 2
    assert result.certificate["accuracy_error_probability"] == pytest.approx(spend(0.05, 2))
    assert spend(0.05, 2) < spend(0.05, 1)
    assert result.artifact is not None
    assert result.artifact.hash == trial_of(folder, "rough").artifact_hash


def test_a_look_that_was_stopped_early_is_read_on_at_no_price(tmp_path: Path, device: FakeDevice) -> None:
    folder = finish(tmp_path / "run", items="as_needed")
    before = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    assert before["data"]["read"] < before["data"]["items"] == 1000
    result = api.resolve(folder, budgets={"max_accuracy_drop_pp": 3.5}, data=TASK)
    assert (result.status, answer(result)) == (Status.MET, "fair")
    assert result.certificate is not None
    assert result.certificate["look"] == looks(folder) == 1
    assert result.certificate["data"]["read"] > before["data"]["read"]


def test_the_same_question_again_measures_nothing_and_costs_no_look(
    folder: Path, resolve: Resolve, device: FakeDevice
) -> None:
    first = resolve(max_accuracy_drop_pp=20, latency_ms="0.6x")
    spent, measured = looks(folder), len(device.measured)
    second = resolve(max_accuracy_drop_pp=20, latency_ms="0.6x")
    assert second.verdict == first.verdict
    assert (looks(folder), len(device.measured)) == (spent, measured)


def test_other_limits_on_accuracy_are_judged_by_the_same_scores_at_the_same_look(
    folder: Path, resolve: Resolve, device: FakeDevice
) -> None:
    result = resolve(max_accuracy_drop_pp=3.9)
    assert (result.status, answer(result)) == (Status.MET, "fair")
    assert result.certificate is not None
    assert result.certificate["look"] == looks(folder) == 1
    assert device.measured == []


def test_another_limit_on_time_is_judged_by_fresh_runs(resolve: Resolve, device: FakeDevice) -> None:
    result = resolve(latency_ms="0.45x")
    assert (result.status, answer(result)) == (Status.MET, "fair")
    assert result.artifact is not None
    assert device.measured == [(result.baseline.hash, result.artifact.hash)]


def test_what_the_run_stopped_before_is_measured_on_the_stored_file_and_kept(
    folder: Path, resolve: Resolve, device: FakeDevice
) -> None:
    assert "score" not in trial_of(folder, "exact").measurement.readings
    result = resolve(latency_ms="0.8x", max_accuracy_drop_pp=0.9)
    assert (result.status, answer(result)) == (Status.MET, "exact")
    row = next(trial for trial in result.history if variants([trial.plan]) == ["exact"])
    assert len(row.measurement.readings["score"].samples) == 300
    record = open_record(folder / "journal.db")
    assert list(record.later_measurements) == [row.number]
    # the run's own record stays what it was
    assert "score" not in record.trials()[row.number].measurement.readings
    record.close()


def test_tighter_budgets_are_not_met_and_name_the_one_in_the_way(folder: Path, resolve: Resolve) -> None:
    result = resolve(latency_ms="0.1x")
    assert result.status is Status.NOT_MET
    assert result.binding is not None
    assert result.binding.budget.metric == "latency_ms"
    assert result.certificate is None
    assert looks(folder) == 1
    assert any("a new run with them may find one" in sentence for sentence in result.explanation)


def test_the_objective_decides_between_files_that_keep_the_budgets(resolve: Resolve) -> None:
    loose = {"size_mb": "0.7x", "latency_ms": "0.9x", "max_accuracy_drop_pp": 20}
    assert answer(resolve(objective="size", **loose)) == "rough"
    assert answer(resolve(objective="accuracy", **loose)) == "exact"


def test_the_model_as_it_is_answers_budgets_that_only_it_keeps(resolve: Resolve) -> None:
    # a thousand items without a change do not show that nothing at all is lost; the model itself loses nothing
    result = resolve(objective="accuracy", size_mb="1x", latency_ms="1x", max_accuracy_drop_pp=0)
    assert (result.status, result.plan) == (Status.MET, Plan())


def test_a_file_that_fails_now_is_left_out_and_named(resolve: Resolve) -> None:
    result = resolve(size_mb="0.9x", latency_ms="0.5x", max_accuracy_drop_pp=0.2)
    assert (result.status, answer(result) == "dies") == (Status.NOT_MET, False)
    assert any("left out" in sentence and "died" in sentence for sentence in result.explanation)


def test_a_file_whose_confirmation_fails_is_left_out_and_the_next_one_is_the_answer(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, asked = resolution.confirm_stored, []

    def once(run: Any, plan: Plan, *more: Any, **options: Any) -> Any:
        asked.append(plan)
        if len(asked) == 1:
            raise MemoryError
        return usual(run, plan, *more, **options)

    monkeypatch.setattr(resolution, "confirm_stored", once)
    result = resolve(size_mb="0.9x", latency_ms="0.9x", max_accuracy_drop_pp=20.0)
    assert result.met, str(result)
    assert result.plan != asked[0]
    assert any("left out" in sentence and "MemoryError" in sentence for sentence in result.explanation)


def test_when_the_time_is_up_it_is_said(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "MEASURING_SECONDS", -1.0)
    monkeypatch.setattr(resolution, "MAX_SECONDS", 0.0)
    result = resolve(latency_ms="0.8x", max_accuracy_drop_pp=0.9)
    assert result.out_of_time
    assert result.status is not Status.MET
    assert any("The time was up" in sentence for sentence in result.explanation)


def test_a_run_at_work_is_read_and_nothing_is_measured_beside_it(
    folder: Path, resolve: Resolve, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Record, "busy", property(lambda record: True))
    assert resolve(max_accuracy_drop_pp=3.9).status is Status.MET
    result = resolve(latency_ms="0.8x", max_accuracy_drop_pp=0.9)
    assert result.status is not Status.MET
    assert any("A run is at work" in sentence for sentence in result.explanation)
    assert (device.measured, looks(folder)) == ([], 1)


# data


def test_without_data_the_scores_of_the_run_s_confirmation_are_judged_again(folder: Path, resolve: Resolve) -> None:
    # rough would be quicker, but nothing shows what it answers to the holdout items
    result = resolve(None, max_accuracy_drop_pp=20)
    assert (result.status, answer(result)) == (Status.MET, "fair")
    assert looks(folder) == 1


def test_without_data_what_was_not_confirmed_is_undecided(folder: Path, resolve: Resolve) -> None:
    result = resolve(None, latency_ms="0.3x", max_accuracy_drop_pp=20)
    assert (result.status, answer(result)) == (Status.UNDECIDED, "rough")
    finding = result.verdict.of("max_accuracy_drop_pp")
    assert finding is not None
    assert finding.standing is Standing.UNMEASURED
    assert any("came from Python: give them as data" in sentence for sentence in result.explanation)
    assert looks(folder) == 2  # its times were looked at


def test_scores_of_another_version_of_the_runtime_are_not_believed(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExportedOnce, "versions", property(lambda runtime: {"onnxruntime": "0"}))
    assert resolve(None, max_accuracy_drop_pp=3.9).status is Status.UNDECIDED


@pytest.mark.parametrize(
    ("task", "word"),
    [
        (task_of(ramp(300), ramp(999)), "other items"),
        (replace(TASK, score="negative_error"), "the score computes something else"),
    ],
)
def test_other_data_than_the_run_s_are_refused(task: Task, word: str, folder: Path, resolve: Resolve) -> None:
    with pytest.raises(DataError, match=word):
        resolve(task, max_accuracy_drop_pp=20)
    assert not (folder / "resolved").exists()


def test_code_that_a_record_names_is_not_run(folder: Path, resolve: Resolve) -> None:
    marker = folder / "was-run"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\ndef task():\n    return None\n")
    note_input(folder, "named", {"folder": str(folder), "data": "evil.py:task"})
    result = resolve(None, latency_ms="0.3x", max_accuracy_drop_pp=20)
    assert result.status is Status.UNDECIDED
    assert any("give --data evil.py:task" in sentence for sentence in result.explanation)
    assert not marker.exists()


def test_a_named_archive_is_loaded_from_where_the_run_was_started(folder: Path, resolve: Resolve) -> None:
    assert TASK.validation is not None
    assert TASK.holdout is not None
    splits = {"val": TASK.validation, "test": TASK.holdout}
    arrays = {}
    for name, split in splits.items():
        (inputs,), labels = split.source.read(list(range(len(split))))
        arrays |= {f"x_{name}": inputs, f"y_{name}": labels}
    np.savez(folder / "items.npz", **arrays)
    note_input(folder, "named", {"folder": str(folder), "data": "items.npz"})
    result = resolve(None, max_accuracy_drop_pp=20)
    assert (result.status, answer(result)) == (Status.MET, "rough")
    arrays["y_test"] = 1 - arrays["y_test"]
    np.savez(folder / "items.npz", **arrays)
    result = resolve(None, latency_ms="0.45x", max_accuracy_drop_pp=0)
    assert any("does not hold the data of the run any more" in sentence for sentence in result.explanation)
    (folder / "items.npz").unlink()
    result = resolve(None, latency_ms="0.45x", max_accuracy_drop_pp=0)
    assert any("cannot be loaded again" in sentence for sentence in result.explanation)


# files


def test_the_run_s_own_answer_stays_as_it_was(folder: Path, resolve: Resolve) -> None:
    before = {name: (folder / name).read_bytes() for name in RESULT_FILES}
    result = resolve(max_accuracy_drop_pp=20, objective="size")
    assert {name: (folder / name).read_bytes() for name in RESULT_FILES} == before
    assert result.folder == folder / "resolved" / "max_accuracy_drop_pp-20pp+size"
    assert {path.name for path in result.folder.iterdir()} == set(RESULT_FILES)
    assert json.loads((result.folder / "result.json").read_text())["status"] == "met"


@pytest.mark.parametrize("budget", [{"memory_mb": "0.9x"}, {"throughput_per_s": "1.5x"}])
def test_memory_and_throughput_that_the_run_did_not_judge_are_measured_for_it(
    resolve: Resolve, device: FakeDevice, budget: dict[str, str]
) -> None:
    result = resolve(**budget, max_accuracy_drop_pp=20)
    finding = result.verdict.of(*budget)
    assert finding is not None
    assert finding.standing is Standing.MET
    assert finding.samples >= 6
    assert any(profile.limits(*budget) for profile in device.profiles)


def test_many_budgets_make_a_short_name(resolve: Resolve) -> None:
    result = resolve(size_mb="0.7x", download_mb="0.9x", memory_mb="1x", latency_ms="0.8x", min_accuracy=50)
    assert len(result.folder.name) == 16


def test_a_folder_of_a_run_is_not_written_to(folder: Path, device: FakeDevice) -> None:
    with pytest.raises(UsageError, match="holds a run"):
        api.resolve(folder, data=TASK, out=folder)


def test_a_changed_file_is_left_out_and_named(folder: Path, resolve: Resolve) -> None:
    shutil.copyfile(artifact_of(folder, "exact"), artifact_of(folder, "rough"))
    result = resolve(latency_ms="0.3x", max_accuracy_drop_pp=20)
    assert result.status is Status.NOT_MET
    assert any(
        "(scripted rough) is left out" in sentence and "no longer" in sentence for sentence in result.explanation
    )
    artifact_of(folder, "rough").write_bytes(b"no model")
    assert any("left out" in s for s in resolve(latency_ms="0.3x", max_accuracy_drop_pp=20).explanation)


def test_a_nearest_miss_whose_file_is_gone_is_not_said_to_be_another_file(folder: Path, resolve: Resolve) -> None:
    nearest = resolve(latency_ms="0.1x")
    assert (nearest.status, answer(nearest)) == (Status.NOT_MET, "fair")
    artifact_of(folder, "fair").unlink()
    result = resolve(latency_ms="0.1x")
    assert result.status is Status.NOT_MET
    assert any("(scripted fair) is left out" in sentence for sentence in result.explanation)
    assert result.artifact is not None
    assert (result.plan, result.artifact.hash) == (Plan(), result.baseline.hash)


# what cannot be resolved


def test_a_changed_baseline_is_refused(folder: Path, resolve: Resolve) -> None:
    shutil.copyfile(artifact_of(folder, "exact"), folder / "checkpoints" / Plan().hash / "model.onnx")
    with pytest.raises(ArtifactError, match="not the baseline"):
        resolve(max_accuracy_drop_pp=20)


def test_another_machine_is_refused(resolve: Resolve, device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "machine", lambda: replace(MACHINE, cores=64))
    with pytest.raises(DeviceError, match="another machine") as caught:
        resolve(max_accuracy_drop_pp=20)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("schema", 99, "has schema 99"),
        ("schema", None, "no run has begun"),
        ("identity", None, "no run has begun"),
        ("baseline", None, "no measurements yet"),
        ("facts", {"family": "cnn"}, "cannot be understood"),
        ("inputs", None, "cannot be understood"),
    ],
)
def test_a_record_that_does_not_say_enough_is_refused(
    key: str, value: Any, word: str, folder: Path, resolve: Resolve
) -> None:
    note(folder, key, value)
    with pytest.raises(AutocompressError, match=word) as caught:
        resolve(max_accuracy_drop_pp=20)
    assert caught.value.exit_code == 2


def test_a_profile_that_cannot_be_read_is_refused(folder: Path, resolve: Resolve) -> None:
    note_input(folder, "profile", {"name": "x", "surprise": 1})
    with pytest.raises(AutocompressError, match="surprise") as caught:
        resolve(max_accuracy_drop_pp=20)
    assert caught.value.exit_code == 2


def test_a_folder_without_a_run_is_refused_and_stays_as_it_is(tmp_path: Path, device: FakeDevice) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        api.resolve(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="holds no journal"):
        api.resolve(tmp_path)
    assert os.listdir(tmp_path) == []
    (tmp_path / "journal.db").touch()
    with pytest.raises(RecordError, match="is empty"):
        api.resolve(tmp_path)
    (tmp_path / "journal.db").write_bytes(b"no database" * 100)
    with pytest.raises(RecordError, match="cannot be opened"):
        api.resolve(tmp_path)
    (tmp_path / "journal.db").unlink()
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'journal.db'}", study_name="autocompress")
    with pytest.raises(RecordError, match="earlier version"):
        api.resolve(tmp_path)
