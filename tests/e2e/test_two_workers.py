"""Two processes at work on one run: they share it, and both come to the same answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autocompress.run.record_store import open_record
from e2e.conftest import digits
from e2e.killing import require_answer, start


@pytest.mark.parametrize(
    "data",
    [
        # nothing to train on: what they share is the search
        "digits.npz",
        pytest.param("digits", marks=pytest.mark.slow),
    ],
)
def test_two_processes_share_a_run_and_end_alike(block_user: Path, tmp_path: Path, data: str) -> None:
    images, labels = digits("test")
    np.savez(block_user / "digits.npz", x_test=images, y_test=labels)
    folder, logs = tmp_path / "run", [tmp_path / "one.log", tmp_path / "two.log"]
    # every plan is tried for this objective
    given = ("--data", data, "--out", folder, "--resume", "--objective", "size")
    both = [start(block_user, *given, log=log) for log in logs]
    codes = [worker.wait(200) for worker in both]
    said = [log.read_text(encoding="utf-8") for log in logs]
    assert codes[0] == codes[1], "\n".join(said)
    for text in said:
        require_answer(folder, codes[0], text)
        assert "search    building" in text, "both do a share of the work"
    record = open_record(folder / "journal.db")
    assert len(record.confirmed_plans) == len(record.looks)
    assert record.owners == {}
