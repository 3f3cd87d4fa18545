"""Ctrl-C and SIGTERM: one line that says what is kept and how to go on, and the exit code that shells expect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.command import process, wait_for
from e2e.killing import finished, left_behind, require_answer, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.mark.parametrize(
    ("sent", "code", "whole_group"),
    [
        (signal.SIGINT, 130, True),
        pytest.param(signal.SIGTERM, 143, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, False, marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C reaches every process of a terminal", "SIGTERM to all", "SIGTERM to the program"],
)
def test_a_run_that_is_stopped_says_in_one_line_what_is_kept_and_how_to_go_on(
    block_user: Path, tmp_path: Path, sent: signal.Signals, code: int, whole_group: bool
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    running = start(block_user, "--out", folder, log=log)
    wait_for("measuring the smallest structure", log, running, seconds=120)
    if whole_group:
        os.killpg(running.pid, sent)
    else:
        running.send_signal(sent)
    assert running.wait(60) == code
    said = [line for line in log.read_text(encoding="utf-8").splitlines() if "error" in line or "Traceback" in line]
    assert said == [
        f"error interrupted; finished trials and training so far are kept in {folder}. "
        "Go on with the same command and --resume."
    ]
    kept = finished(folder)
    # the measuring process was not taken for one that had died by itself
    assert not any('"failed"' in text for text in kept.values())
    assert left_behind(block_user) == []
    if not whole_group:
        again = start(block_user, "--out", folder, "--resume", log=log)
        require_answer(folder, again.wait(120), "")
        assert {number: finished(folder)[number] for number in kept} == kept


def test_any_command_that_is_stopped_says_so_and_nothing_else(work: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ndef model():\n    print('begun', flush=True)\n    time.sleep(60)\n", encoding="utf-8")
    with log.open("wb") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "autocompress.cli.commands", "inspect", "--model", f"{slow}:model"],
            cwd=work,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    wait_for("begun", log, running)
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    assert log.read_text(encoding="utf-8").split("\n")[1:] == ["error interrupted.", ""]


def test_a_run_that_is_stopped_before_it_began_promises_nothing(work: Path, tmp_path: Path) -> None:
    done = process("run", "--model", "models.py:interrupted", "--size-mb", "1", "--out", tmp_path / "run", folder=work)
    assert done.code == 130
    assert done.error_lines == [
        "error interrupted before anything was measured. Go on with the same command and --resume."
    ]
