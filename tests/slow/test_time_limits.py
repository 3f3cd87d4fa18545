"""A limit on the time is kept where training becomes three times as slow; a run that was cut survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from e2e.blocks import network
from e2e.conftest import residual
from torch import nn

from autocompress import Status, Task, autocompress
from autocompress.api import apply_plan
from autocompress.core.profile import Protocol, load_profile
from autocompress.data.data_spec import load_data
from autocompress.run.result import Result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
BRIEF = replace(load_profile("local"), protocol=Protocol(max_seconds=0.6, precision=0.2))
BUDGETS = {"size_mb": "0.2x", "max_accuracy_drop_pp": 6.0}
# so many times the limit, and seconds for a machine that others use as well
OVER, MORE = 1.1, 5.0


class Tiring(nn.Module):
    """Passes its input on; in training it sleeps, longer from the step on at which it is tired."""

    steps = 0
    tired_from = 100
    fresh_seconds = 0.02
    slowness = 3.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            Tiring.steps += 1
            tired = Tiring.steps > Tiring.tired_from
            time.sleep(Tiring.fresh_seconds * (Tiring.slowness if tired else 1.0))
        return x


@pytest.fixture(scope="module")
def task() -> Task:
    return load_data("digits")


@pytest.fixture(scope="module")
def model(task: Task) -> nn.Module:
    inputs, labels = task.train.read(range(len(task.train)))
    images, targets = torch.from_numpy(np.asarray(inputs[0])), torch.from_numpy(labels)
    torch.manual_seed(0)
    trained = network(width=24, count=6).train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3)
    for _ in range(15):
        for batch in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(trained(images[batch]), targets[batch]).backward()
            optimizer.step()
    return nn.Sequential(Tiring(), *trained).eval()


def run(model: nn.Module, task: Task, limit: float, out: Path) -> tuple[Result, float]:
    Tiring.steps = 0
    began = time.monotonic()
    result = autocompress(model, BRIEF, task, budgets=BUDGETS, objective="accuracy", max_time=limit, out=out)
    return result, time.monotonic() - began


@pytest.mark.parametrize("limit", [150.0, 300.0])
def test_a_limit_is_kept_when_training_becomes_slower(
    model: nn.Module, task: Task, tmp_path: Path, limit: float
) -> None:
    result, seconds = run(model, task, limit, tmp_path / "run")
    cut = [trial.plan for trial in result.history if trial.plan != trial.plan.planned]
    steps = [(step.settings["steps"], step.steps_taken) for plan in cut for step in plan.rounds[-1][-1:]]
    print(f"limit {limit:.0f} s, took {seconds:.1f} s, {result.status}: {result.plan_name}; cut {steps}")
    assert seconds <= OVER * limit + MORE
    assert cut
    assert all(taken < planned for planned, taken in steps)
    assert result.status in (Status.MET, Status.UNDECIDED), str(result)
    # the plan that ships gives the same bytes again, without a limit
    again = apply_plan(result.plan, model, BRIEF, task, budgets=BUDGETS, out=tmp_path / "again")
    assert again.artifact.hash == result.artifact.hash


def started(user: Path, out: str, *, marker: str = "", resume: bool = False) -> int:
    """A run in a process of its own whose trainings are cut; its exit code."""
    program = Path(__file__).with_name("cutting.py")
    given = ["run", "--model", "blocks.py:trained", "--data", "digits", "--profile", "small.yaml", "--size-mb", "0.15x"]
    command = [sys.executable, program, *given, "--out", out, *(["--resume"] if resume else [])]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with (user / f"{out}.log").open("ab") as log:
        return subprocess.run(
            list(map(str, command)),
            cwd=user,
            env={**os.environ, "BRIEF_STEPS": "100", "KILLED_BY": marker, "PYTHONPATH": path},
            stdout=log,
            stderr=log,
            timeout=300,
            check=False,
        ).returncode


def test_a_run_killed_after_a_cut_comes_to_the_same_answer(tmp_path: Path) -> None:
    user = residual(tmp_path)
    whole = started(user, "whole")
    assert started(user, "killed", marker="killed.txt") == -signal.SIGKILL
    assert (user / "killed.txt").exists()
    assert started(user, "killed", marker="killed.txt", resume=True) == whole
    plans = [(user / out / "plan.yaml").read_text(encoding="utf-8") for out in ("whole", "killed")]
    assert "cuts: 80:90" in plans[0]
    assert plans[0] == plans[1]
    files = [(user / out / "model.onnx").read_bytes() for out in ("whole", "killed")]
    assert files[0] == files[1]
