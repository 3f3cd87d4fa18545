"""`autocompress resolve`, from a real run to the files of another answer."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import autocompress as package
from autocompress import Status
from autocompress.core.plan import Plan
from autocompress.data.data_spec import load_data
from autocompress.run.record_store import open_record
from autocompress.runtimes import OnnxRuntime
from autocompress.statistics.bounds import spend
from e2e.command import Done, command
from e2e.conftest import Run, digits

FILES = {
    "result.json", "plan.yaml", "model.onnx", "baseline.onnx", "certificate.json", "report.html", "trials.csv",
}  # fmt: skip


@pytest.fixture(scope="module")
def missed(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose size nothing keeps: every trial was stopped at once, and no item confirmed anything."""
    folder = tmp_path_factory.mktemp("missed") / "run"
    done = command(
        "run", "--model", "models.py:rows", "--data", "digits.npz", "--profile", "small.yaml", "--size-mb", "0.02x",
        "--out", folder, folder=work,
    )  # fmt: skip
    assert done.code == 1, done.err
    return Run(done, folder)


@pytest.fixture
def folder(missed: Run, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(missed.folder, tmp_path / "run"))


def looks(folder: Path) -> int:
    record = open_record(folder / "journal.db")
    try:
        return len(record.looks)
    finally:
        record.close()


def certificate(folder: Path) -> dict:
    return json.loads((folder / "certificate.json").read_text(encoding="utf-8"))


def resolved(*arguments: str | Path, folder: Path) -> Done:
    return command("resolve", *arguments, folder=folder)


def test_looser_budgets_are_met_by_a_stored_file_in_seconds(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db"}
    # from another folder: where the run was started is noted
    done = resolved(folder, "--size-mb", "0.5x", folder=tmp_path)
    assert done.code == 0, done.err
    assert re.search(r"\nmet: (dynamic )?int8", done.out)
    answer = folder / "resolved" / "size_mb-0.5x"
    assert {path.name for path in answer.iterdir()} == FILES
    shipped = OnnxRuntime().read(answer / "model.onnx")
    assert certificate(answer)["artifact_sha256"] == shipped.hash
    assert certificate(answer)["data"]["items"] == len(load_data("digits").holdout or ())
    assert done.seconds < 30
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before


def test_a_file_that_was_not_looked_at_costs_a_look_and_the_same_question_no_further(
    digits_run: Run, work: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(digits_run.folder, tmp_path / "run"))
    record = open_record(folder / "journal.db")
    # as if the run had looked at another file than the one that answers now
    record.notes.amend("confirmations", lambda _: {})
    record.notes.amend("looks", lambda _: [{"what": "another file", "time": 0.0}])
    record.close()
    first = resolved(folder, "--max-accuracy-drop-pp", "4", folder=work)
    assert first.code == 0, first.err
    answer = folder / "resolved" / "max_accuracy_drop_pp-4pp"
    assert certificate(answer)["look"] == looks(folder) == 2
    assert certificate(answer)["accuracy_error_probability"] == pytest.approx(spend(0.05, 2))
    verdict = json.loads((answer / "result.json").read_text())["verdict"]
    again = resolved(folder, "--max-accuracy-drop-pp", "4", folder=work)
    assert again.code == 0
    assert looks(folder) == 2
    assert json.loads((answer / "result.json").read_text())["verdict"] == verdict
    assert "latency" not in again.out.split("MB parameters")[0]


def test_tighter_budgets_are_not_met_and_the_one_in_the_way_is_named(digits_run: Run, tmp_path: Path) -> None:
    done = resolved(digits_run.folder, "--size-mb", "0.01x", "--out", tmp_path / "answer", folder=tmp_path)
    assert done.code == 1
    assert "size_mb stands in the way" in done.out
    assert json.loads((tmp_path / "answer" / "result.json").read_text())["binding"] == "size_mb"
    assert not (tmp_path / "answer" / "certificate.json").exists()


def test_a_resumed_run_keeps_its_own_verdict(digits_run: Run, work: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(digits_run.folder, tmp_path / "run"))
    assert resolved(folder, "--latency-ms", "0.001x", folder=work).code == 1
    record = open_record(folder / "journal.db")
    plan = Plan.read(folder / "plan.yaml")
    confirmed = record.confirmation(plan)
    record.close()
    assert confirmed is not None
    assert confirmed.certificate["status"] == "met"


def test_without_its_data_a_run_is_undecided(folder: Path, work: Path, tmp_path: Path) -> None:
    record = open_record(folder / "journal.db")
    record.inputs = replace(record.inputs, named={"folder": str(tmp_path), "data": "digits.npz"})
    record.close()
    done = resolved(folder, "--size-mb", "0.5x", folder=work)
    assert done.code == 3
    assert "cannot be loaded again" in done.out
    # no answer was looked at, but the times of one file
    assert looks(folder) == 1
    done = resolved(folder, "--size-mb", "0.5x", "--data", "digits.npz", folder=work)
    assert done.code == 0, done.err


def test_other_data_are_refused(folder: Path, work: Path) -> None:
    done = resolved(folder, "--size-mb", "0.5x", "--data", "tasks.py:one_hot_targets", folder=work)
    assert done.code == 2
    assert len(done.error_lines) == 1
    assert "not the data of the run" in done.err


def test_code_in_a_folder_of_a_run_is_not_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    record = open_record(folder / "journal.db")
    named = {"folder": str(tmp_path), "data": "evil.py:task", "model": "evil.py:model"}
    record.inputs = replace(record.inputs, named=named)
    record.close()
    done = resolved(folder, "--size-mb", "0.5x", folder=tmp_path)
    assert done.code == 3
    assert "give --data evil.py:task" in done.out
    assert not marker.exists()


def test_a_run_notes_how_its_inputs_were_named(missed: Run, work: Path) -> None:
    record = open_record(missed.folder / "journal.db")
    named = record.inputs.named
    record.close()
    assert named == {
        "folder": str(work), "model": "models.py:rows", "data": "digits.npz", "augment": "none",
        "profile": "small.yaml",
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, b"", b"no database" * 99], ids=["none", "empty", "broken"])
def test_a_folder_without_a_journal_is_an_error_in_one_line(content: bytes | None, work: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "journal.db").write_bytes(content)
    done = resolved(tmp_path, "--size-mb", "0.5x", folder=work)
    assert done.code == 2
    assert len(done.error_lines) == 1
    assert "journal" in done.err


def test_the_call_from_python_says_the_same(folder: Path) -> None:
    result = package.resolve(folder, budgets={"size_mb": "0.5x"}, data=digits("test"))
    assert result.status is Status.MET
    assert result.trials is not None
    assert result.unwrap().path == folder / "resolved" / "size_mb-0.5x" / "model.onnx"
