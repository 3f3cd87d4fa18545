"""Two processes at work on one run: they share it, and both come to the same answer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autocompress.run.record_store import open_record
from e2e import command, killing
from e2e.killing import require_answer


def require_same_end(both: list[subprocess.Popen[bytes]], logs: list[Path], folder: Path) -> list[str]:
    """Both end with the answer that is there, and own nothing any more; what they said."""
    codes = [worker.wait(200) for worker in both]
    said = [log.read_text(encoding="utf-8") for log in logs]
    assert codes[0] == codes[1], "\n".join(said)
    for text in said:
        require_answer(folder, codes[0], text)
    record = open_record(folder / "journal.db")
    assert record.owners == {}
    return said


def test_two_processes_wait_for_each_other_and_end_alike(work: Path, tmp_path: Path) -> None:
    folder, logs = tmp_path / "run", [tmp_path / "one.log", tmp_path / "two.log"]
    # without data there are two plans, and the objective asks for both
    arguments = (
        "run", "--model", "models.py:rows", "--input", "1x1x8x8", "--profile", "size-alone.yaml",
        "--objective", "size", "--out", folder, "--resume",
    )  # fmt: skip
    said = require_same_end([command.start(*arguments, folder=work, log=log) for log in logs], logs, folder)
    assert any("waiting for another worker" in text for text in said)
    built = [text.count("search    building") for text in said]
    assert sum(built) == 2, "no plan is tried twice"


@pytest.mark.slow
def test_two_processes_share_a_run_that_trains_and_end_alike(block_user: Path, tmp_path: Path) -> None:
    folder, logs = tmp_path / "run", [tmp_path / "one.log", tmp_path / "two.log"]
    # every plan is tried for this objective
    given = ("--out", folder, "--resume", "--objective", "size")
    said = require_same_end([killing.start(block_user, *given, log=log) for log in logs], logs, folder)
    assert all("search    building" in text for text in said), "both do a share of the work"
    record = open_record(folder / "journal.db")
    assert len(record.confirmed_plans) == len(record.looks)
