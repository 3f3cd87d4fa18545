"""Runs that are killed again and again, and what has to hold after each kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch

from autocompress.core.trial import Outcome, Trial
from autocompress.run.record_store import open_record
from e2e import blocks
from e2e.command import WIDE

PROGRAM = Path(__file__).with_name("brief.py")
BUDGETS = ("--size-mb", "0.2x", "--max-accuracy-drop-pp", "6")


def start(user: Path, *arguments: str | Path, log: Path, steps: int = 40) -> subprocess.Popen[bytes]:
    """`autocompress run` on the residual network, brief, in a session and with a temporary folder of its own."""
    temporary = user / "tmp"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, PROGRAM, "run", "--model", "blocks.py:trained", "--data", "digits", "--profile"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*map(str, command), "small.yaml", *BUDGETS, *map(str, arguments)],
            cwd=user,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": str(WIDE), "TMPDIR": str(temporary), "BRIEF_STEPS": str(steps)},
            start_new_session=True,
        )


def trained(user: Path) -> torch.nn.Module:
    """The user's network."""
    module = blocks.network()
    module.load_state_dict(torch.load(user / "blocks.pt", weights_only=True))
    return module.eval()


def finished(folder: Path) -> dict[int, str]:
    """JSON texts of all finished trials by number; none without a journal."""
    return {trial.number: json.dumps(trial.to_json()) for trial in trials_of(folder) if not _claimed(trial)}


def trials_of(folder: Path) -> list[Trial]:
    if not (folder / "journal.db").exists():
        return []
    record = open_record(folder / "journal.db")
    try:
        return record.trials()
    finally:
        record.close()


def _claimed(trial: Trial) -> bool:
    return trial.outcome is Outcome.CLAIMED


def require_whole_files(folder: Path) -> None:
    """Every file of the run that is there can be read."""
    for path in folder.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    for path in folder.rglob("*.onnx"):
        onnx.checker.check_model(onnx.load(path))
    for path in folder.rglob("*.pt"):
        torch.load(path, weights_only=True)


def trained_steps(folder: Path) -> dict[Path, int]:
    """The step that each checkpoint of a training has come to."""
    found = folder.glob("checkpoints/*/training.pt")
    return {path: int(torch.load(path, weights_only=True)["step"]) for path in found}


def require_answer(folder: Path, code: int, said: str) -> None:
    """A run that ended: a valid status, its exit code, no plan twice, nothing claimed any more."""
    assert "Traceback" not in said, said
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert {"met": 0, "not met": 1, "undecided": 3}[result["status"]] == code, said
    trials = trials_of(folder)
    assert not any(map(_claimed, trials))
    hashes = [trial.plan.hash for trial in trials]
    assert len(set(hashes)) == len(hashes)
    require_whole_files(folder)
    assert not list(folder.rglob(".*-w*-*")), "what killed processes were writing is swept"


@dataclass
class Killed:
    """One run, killed at random moments and resumed until it ends."""

    user: Path
    folder: Path
    chance: random.Random
    steps: int
    kills: int = 0
    resumed_trainings: int = 0
    known: dict[int, str] = field(default_factory=dict)
    steps_known: dict[Path, int] = field(default_factory=dict)

    def go_on(self, most: int, seconds: tuple[float, float], *more: str) -> bool:
        """Kill until the run ends by itself (True) or `most` kills are made."""
        log = self.folder.with_suffix(".log")
        while self.kills < most:
            running = start(self.user, "--out", self.folder, "--resume", *more, log=log, steps=self.steps)
            try:
                code = running.wait(self.chance.uniform(*seconds))
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                self.kills += 1
                self._check()
                continue
            self._check()
            require_answer(self.folder, code, log.read_text(encoding="utf-8"))
            return True
        return False

    def end(self, *more: str) -> int:
        """Resume without a kill; the exit code."""
        log = self.folder.with_suffix(".log")
        running = start(self.user, "--out", self.folder, "--resume", *more, log=log, steps=self.steps)
        code = running.wait(200)
        self._check()
        require_answer(self.folder, code, log.read_text(encoding="utf-8"))
        return code

    def _check(self) -> None:
        found = finished(self.folder)
        assert {number: found.get(number) for number in self.known} == self.known
        self.known = found
        require_whole_files(self.folder)
        steps = trained_steps(self.folder)
        for path, before in self.steps_known.items():
            assert steps[path] >= before, f"{path} went back"
            self.resumed_trainings += steps[path] > before
        self.steps_known = steps


def left_behind(user: Path) -> Sequence[str]:
    """Temporary folders of the runs that are still there."""
    return sorted(path.name for path in (user / "tmp").iterdir() if path.is_dir())
