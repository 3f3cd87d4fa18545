"""`autocompress run`, `apply` and `--resume`, from the command to the files."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from autocompress.core.plan import Plan
from autocompress.core.trial import Outcome, Trial
from autocompress.data.data_spec import load_data
from autocompress.run.record_store import open_record
from autocompress.runtimes import OnnxRuntime
from e2e.command import Done, alive, children, command, process, start, wait_for
from e2e.conftest import EXAMPLE, Run

FILES = {"result.json", "plan.yaml", "model.onnx", "certificate.json", "report.html", "trials.csv", "journal.db"}
ROWS = ("--model", "models.py:rows", "--data", "digits.npz", "--profile", "small.yaml")


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def finding(folder: Path, metric: str) -> dict:
    return next(found for found in result_of(folder)["verdict"]["findings"] if found["metric"] == metric)


def journal_of(folder: Path) -> tuple[list[Trial], int]:
    record = open_record(folder / "journal.db")
    try:
        return record.trials(), len(record.looks)
    finally:
        record.close()


def contents(folder: Path) -> dict[str, bytes]:
    """What an answer consists of: every file of the run but the journal, which is a database."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("journal.db"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def right_answers(model: Path, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    return logits.argmax(1) == labels


@pytest.fixture
def copied(rows_run: Run, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(rows_run.folder, tmp_path / "run"))


@pytest.fixture(scope="session")
def impossible(rows_run: Run, tmp_path_factory: pytest.TempPathFactory, work: Path) -> Run:
    """A run with a size that nothing reaches, in the folder of an earlier run."""
    folder = Path(shutil.copytree(rows_run.folder, tmp_path_factory.mktemp("impossible") / "run"))
    return Run(command("run", *ROWS, "--size-mb", "0.01x", "--out", folder, folder=work), folder)


def test_budgets_with_room_are_met(digits_run: Run) -> None:
    assert digits_run.done.code == 0, digits_run.done.err
    assert re.search(r"\nmet: (dynamic )?int8", digits_run.done.out)
    assert digits_run.done.err == ""
    result = result_of(digits_run.folder)
    assert (result["status"], result["binding"], result["out_of_time"]) == ("met", None, False)
    assert {found["standing"] for found in result["verdict"]["findings"]} == {"met"}
    assert [found["metric"] for found in result["verdict"]["findings"]] == [
        "size_mb",
        "latency_ms",
        "max_accuracy_drop_pp",
    ]


def test_a_run_leaves_every_file_of_the_design_and_no_half_written_one(digits_run: Run) -> None:
    present = {path.name for path in digits_run.folder.iterdir()}
    assert present >= {*FILES, "checkpoints"}
    assert not [name for name in present if name.startswith(".")]
    assert (digits_run.folder / "journal.db").read_bytes().startswith(b"SQLite format 3\0")
    assert digits_run.baseline.is_file()


def test_trials_and_report_tell_the_same_as_the_result(digits_run: Run) -> None:
    result, frame = result_of(digits_run.folder), pd.read_csv(digits_run.folder / "trials.csv")
    assert result["schema"] == 2
    assert list(frame["plan_hash"]) == [trial["plan_hash"] for trial in result["trials"]]
    assert len(frame) == len(journal_of(digits_run.folder)[0]) >= 1
    report = (digits_run.folder / "report.html").read_text(encoding="utf-8")
    assert "Budgets met" in report
    assert result["artifact"]["sha256"] in report
    assert report.rstrip().endswith("</html>")
    assert "<script" not in report
    assert 'src="http' not in report


def test_the_certificate_is_about_the_file_that_ships(digits_run: Run) -> None:
    certificate = json.loads((digits_run.folder / "certificate.json").read_text(encoding="utf-8"))
    shipped = OnnxRuntime().read(digits_run.folder / "model.onnx")
    assert certificate["artifact_sha256"] == shipped.hash == result_of(digits_run.folder)["artifact"]["sha256"]
    assert certificate["baseline_sha256"] == OnnxRuntime().read(digits_run.baseline).hash
    assert certificate["status"] == "met"
    assert certificate["plan_hash"] == Plan.read(digits_run.folder / "plan.yaml").hash
    assert certificate["look"] == 1 == journal_of(digits_run.folder)[1]
    assert certificate["data"]["items"] == len(load_data("digits").holdout)


def test_size_and_accuracy_are_those_of_the_files_on_the_items_that_confirm(digits_run: Run) -> None:
    baseline, answer = result_of(digits_run.folder)["stages"]
    shipped = digits_run.folder / "model.onnx"
    assert answer["size_mb"] == shipped.stat().st_size / 1e6 <= 0.35 * digits_run.baseline.stat().st_size / 1e6
    part = load_data("digits").holdout
    assert part is not None
    (images,), labels = part.source.read([int(i) for i in part.indices])
    before, after = right_answers(digits_run.baseline, images, labels), right_answers(shipped, images, labels)
    assert baseline["score"] == pytest.approx(before.mean())
    assert answer["score"] == pytest.approx(after.mean())
    drop = finding(digits_run.folder, "max_accuracy_drop_pp")
    assert drop["value"] == pytest.approx(100 * (before.mean() - after.mean()))
    assert drop["low"] < drop["value"] < drop["high"] <= 3.0


def test_apply_in_another_process_gives_the_same_bytes(digits_run: Run, work: Path, tmp_path: Path) -> None:
    done = process(
        "apply", digits_run.folder / "plan.yaml", "--model", f"{EXAMPLE}:model", "--data", "digits",
        "--profile", "full.yaml", "--out", tmp_path / "again", folder=work,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (digits_run.folder / "model.onnx").read_bytes()
    assert (tmp_path / "again" / "plan.yaml").read_bytes() == (digits_run.folder / "plan.yaml").read_bytes()
    assert result_of(tmp_path / "again")["status"] == "met"


def test_resuming_a_finished_run_repeats_the_answer_and_looks_at_nothing_new(
    digits_run: Run, work: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(digits_run.folder, tmp_path / "run"))
    done = command(
        "run", "--model", f"{EXAMPLE}:model", "--data", "digits", "--profile", "full.yaml", "--out", folder, "--resume",
        folder=work,
    )  # fmt: skip
    assert done.code == 0, done.err
    for name in ("model.onnx", "plan.yaml", "certificate.json", "trials.csv"):
        assert (folder / name).read_bytes() == (digits_run.folder / name).read_bytes(), name
    assert result_of(folder)["verdict"] == result_of(digits_run.folder)["verdict"]
    assert journal_of(folder)[1] == journal_of(digits_run.folder)[1]
    assert "probing" not in done.out
    assert "measuring latency" not in done.out
    assert done.seconds < digits_run.done.seconds / 2


@pytest.mark.parametrize(
    ("changed", "arguments"),
    [
        ("budgets", [*ROWS, "--size-mb", "0.4x"]),
        ("data", ["--model", "models.py:rows", "--data", "digits", "--profile", "small.yaml"]),
        ("model", ["--model", "models.py:others", "--data", "digits.npz", "--profile", "small.yaml"]),
        ("objective", [*ROWS, "--objective", "size"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_resume_is_refused_with_other(changed: str, arguments: Sequence[str], copied: Path, work: Path) -> None:
    answer = {name: (copied / name).read_bytes() for name in FILES - {"journal.db"}}
    done = command("run", *arguments, "--out", copied, "--resume", folder=work)
    assert done.code == 2
    assert len(done.error_lines) == 1
    assert f": {changed} changed" in done.err
    assert "--resume" in done.err
    assert {name: (copied / name).read_bytes() for name in answer} == answer


def test_a_refused_resume_changes_no_file(copied: Path, work: Path) -> None:
    before = contents(copied)
    done = command(
        "run", "--model", "models.py:others", "--data", "digits.npz", "--profile", "small.yaml", "--out", copied,
        "--resume", folder=work,
    )  # fmt: skip
    assert done.code == 2
    assert contents(copied) == before


def test_a_run_that_cannot_start_leaves_the_earlier_answer_where_it_is(copied: Path, work: Path) -> None:
    done = command(
        "run", "--model", "models.py:unexportable", "--data", "digits.npz", "--profile", "small.yaml", "--out", copied,
        folder=work,
    )  # fmt: skip
    assert done.code == 2
    assert (copied / "model.onnx").exists()


def test_impossible_budgets_give_the_nearest_miss_and_name_the_budget_in_the_way(impossible: Run) -> None:
    assert impossible.done.code == 1, impossible.done.err
    result = result_of(impossible.folder)
    assert (result["status"], result["binding"]) == ("not met", "size_mb")
    assert "\nnot met: " in impossible.done.out
    assert "size_mb stands in the way" in impossible.done.out
    value = finding(impossible.folder, "size_mb")["value"]
    assert value > 0.01
    reached = re.search(r"size_mb: the best that was reached is ([\d.]+)x, asked 0.01x", impossible.done.out)
    assert reached is not None
    assert 0.01 < float(reached[1]) <= value + 0.001
    assert all(trial["outcome"] == "stopped" for trial in result["trials"])


def test_the_nearest_miss_is_there_as_files_without_a_certificate(impossible: Run) -> None:
    present = {path.name for path in impossible.folder.iterdir() if path.is_file()}
    assert present >= FILES - {"certificate.json"}
    assert "certificate.json" not in present
    nearest = OnnxRuntime().read(impossible.folder / "model.onnx")
    result = result_of(impossible.folder)
    assert nearest.hash == result["artifact"]["sha256"] != result["baseline_sha256"]
    # measured to the end, also what its trial had left out
    assert finding(impossible.folder, "max_accuracy_drop_pp")["standing"] != "unmeasured"
    assert "nothing was certified" in impossible.done.out


def test_a_second_run_keeps_the_first_in_previous(impossible: Run, rows_run: Run) -> None:
    assert [path.name for path in (impossible.folder / "previous").iterdir()] == ["1"]
    kept = impossible.folder / "previous" / "1"
    assert contents(kept) == contents(rows_run.folder)
    assert [trial.plan for trial in journal_of(kept)[0]] == [trial.plan for trial in journal_of(rows_run.folder)[0]]


def test_without_data_the_answer_is_undecided_because_accuracy_is_unmeasured(work: Path, tmp_path: Path) -> None:
    done = command(
        "run", "--model", "models.py:rows", "--input", "1x1x8x8:float32", "--profile", "small.yaml", "--out", tmp_path,
        folder=work,
    )  # fmt: skip
    assert done.code == 3
    assert "unmeasured  max_accuracy_drop_pp  accuracy was not measured" in done.out
    assert finding(tmp_path, "max_accuracy_drop_pp")["standing"] == "unmeasured"
    assert finding(tmp_path, "size_mb")["standing"] == "met"
    assert result_of(tmp_path)["status"] == "undecided"
    assert "int8_static: needs calibration data, and there are none" in done.out


def test_a_profile_of_another_machine_measures_nothing_and_names_the_differences(work: Path, tmp_path: Path) -> None:
    done = command(
        "run", "--model", "models.py:rows", "--data", "digits.npz", "--profile", "raspberry-pi-4",
        "--out", tmp_path / "run", folder=work,
    )  # fmt: skip
    assert done.code == 4
    assert len(done.error_lines) == 1
    assert "board 'Raspberry Pi 4 Model B', here" in done.err
    assert "profile detect" in done.err
    assert not (tmp_path / "run").exists()


def test_time_that_runs_out_leaves_an_answer_and_never_ends_0(work: Path, tmp_path: Path) -> None:
    done = command("run", *ROWS, "--max-time", "1s", "--out", tmp_path, folder=work)
    assert done.code in (1, 3)
    result = result_of(tmp_path)
    assert result["out_of_time"] is True
    assert result["status"] != "met"
    assert "The time was up" in done.out
    assert (tmp_path / "model.onnx").exists()


def test_an_interrupt_ends_130_and_says_how_to_go_on(work: Path, tmp_path: Path) -> None:
    done = command("run", "--model", "models.py:interrupted", "--out", tmp_path, folder=work)
    assert done.code == 130
    assert "--resume" in done.err


@pytest.fixture(scope="session")
def killed(work: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], list[Trial], Done]:
    """A run killed while it measured its second plan, its children then, its finished trials; and what resumed."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    folder = tmp_path_factory.mktemp("killed")
    # without data there are two plans, and the objective asks for both
    arguments = (
        "run", "--model", "models.py:rows", "--input", "1x1x8x8", "--profile", "size-alone.yaml",
        "--objective", "size", "--out", folder / "run",
    )  # fmt: skip
    running = start(*arguments, folder=work, log=folder / "log")
    wait_for("plan 2 of at most 2", folder / "log", running)
    left: list[int] = []
    while not left:
        assert running.poll() is None
        left = children(running.pid)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finished = [trial for trial in journal_of(folder / "run")[0] if trial.outcome is not Outcome.CLAIMED]
    return folder / "run", left, finished, command(*arguments, "--resume", folder=work)


def test_a_killed_run_leaves_no_process_behind(killed: tuple[Path, list[int], list[Trial], Done]) -> None:
    _, left, _, _ = killed
    deadline = time.monotonic() + 5
    while any(map(alive, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in left if alive(pid)] == []


def test_a_killed_run_is_finished_by_resume_and_keeps_its_trials(
    killed: tuple[Path, list[int], list[Trial], Done],
) -> None:
    folder, _, finished, resumed = killed
    assert resumed.code == 0, resumed.err
    assert len(finished) == 1
    trials, _ = journal_of(folder)
    assert trials[0].to_json() == finished[0].to_json()
    assert len(trials) > 1
    assert Outcome.CLAIMED not in {trial.outcome for trial in trials}
    assert len({trial.plan.hash for trial in trials}) == len(trials)
    assert "plan 1 of" not in resumed.out
    assert (folder / "model.onnx").exists()
    assert result_of(folder)["status"] == "met"


def test_time_is_counted_over_all_resumptions(killed: tuple[Path, list[int], list[Trial], Done], work: Path) -> None:
    folder, _, _, resumed = killed
    assert result_of(folder)["seconds"] > resumed.seconds


def test_the_stage_table_names_the_techniques_whole_at_80_columns(rows_run: Run, work: Path) -> None:
    done = command("report", rows_run.folder, folder=work, columns=80)
    assert done.code == 0
    assert "…" not in done.out


def test_too_few_items_to_confirm_are_no_defect_of_the_program(work: Path, tmp_path: Path) -> None:
    done = command(
        "run", "--model", "models.py:rows", "--data", "tasks.py:single", "--profile", "small.yaml", "--out", tmp_path,
        folder=work,
    )  # fmt: skip
    assert "internal" not in done.err
    assert done.code in (2, 3)


def test_points_of_accuracy_are_never_met_by_a_score_that_is_no_rate(work: Path, tmp_path: Path) -> None:
    done = command(
        "run", "--model", "models.py:rows", "--data", "tasks.py:one_hot_targets", "--profile", "small.yaml",
        "--out", tmp_path, folder=work,
    )  # fmt: skip
    assert done.code in (2, 3)


def test_a_label_that_no_class_has_is_found_before_anything_is_searched(work: Path, tmp_path: Path) -> None:
    done = command(
        "run", "--model", "models.py:rows", "--data", "tasks.py:late_label", "--profile", "small.yaml",
        "--out", tmp_path, folder=work,
    )  # fmt: skip
    assert done.code == 2
    assert "label 99" in done.err
    assert "search" not in done.out


def test_a_run_without_budgets_says_that_there_are_none(work: Path, tmp_path: Path) -> None:
    profile = tmp_path / "none.yaml"
    profile.write_text("name: none\nprotocol: {max_seconds: 0.2, precision: 0.5}\n", encoding="utf-8")
    done = command(
        "run", "--model", "models.py:rows", "--input", "1x1x8x8", "--profile", profile, "--out", tmp_path / "run",
        "--max-time", "1s", folder=work,
    )  # fmt: skip
    assert done.code in (2, 3)
    assert "no budget" in (done.out + done.err).lower()
