"""A plan whose training was cut gives the same file again, without a limit on the time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress import Task
from autocompress.api import apply_plan
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.profile import Protocol, load_profile
from autocompress.run import search
from autocompress.run.search import evaluate
from autocompress.run.setup import declared, open_run

SETTINGS = {"steps": 40, "batch": 32, "seed": 0, "learning_rate": 0.05, "optimizer": "sgd", "views": 2}
DYNAMIC = {"weight": "int8", "per_channel": True, "convolutions": False, "reduce_range": False}
BRIEF = replace(load_profile("local"), protocol=Protocol(max_seconds=0.1, precision=0.5))
BUDGETS = {"size_mb": "0.9x", "max_accuracy_drop_pp": 50.0}


def test_a_cut_plan_that_is_applied_gives_the_bytes_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)).eval()
    inputs = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    task = Task(train=(inputs[:200], labels[:200]), test=(inputs[200:], labels[200:]))
    planned = Plan(
        ((Step("distillation", Stage.RECOVERY, SETTINGS),),), (Step("int8_dynamic", Stage.PRECISION, DYNAMIC),)
    )
    # from the tenth step on no time is left
    left = iter([1000.0] * 9)
    monkeypatch.setattr(search, "seconds_for_training", lambda run, reserved: next(left, 0.0))
    run = open_run(model, declared(BRIEF, BUDGETS), task, out=tmp_path / "run", max_time=1000.0)
    try:
        trial = evaluate(run, planned, 0)
        assert run.artifacts.find(planned) is None
    finally:
        run.close()
    (trained,) = trial.plan.rounds[0]
    assert trained.settings["cuts"] == "10:10"
    monkeypatch.undo()
    (tmp_path / "plan.yaml").write_text(trial.plan.to_yaml(), encoding="utf-8")
    again = apply_plan(Plan.read(tmp_path / "plan.yaml"), model, BRIEF, task, budgets=BUDGETS, out=tmp_path / "again")
    assert again.artifact is not None
    assert again.artifact.hash == trial.artifact_hash
    assert again.plan == trial.plan
