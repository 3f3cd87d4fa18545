"""`run`, `plan` and `apply` with a training recipe of the user's, from a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from e2e.command import WIDE
from e2e.conftest import residual
from e2e.killing import BUDGETS, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RECIPES = """
import torch
from torch import nn

from autocompress import TrainingRecipe

numbers = TrainingRecipe(optimizer="adamw", learning_rate=0.002, batch=64)


def train(module, teacher, batches):
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for inputs, targets in batches:
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - batches.done)
        with torch.no_grad():
            wanted = teacher(inputs)
        optimizer.zero_grad()
        nn.functional.mse_loss(module(inputs), wanted).backward()
        optimizer.step()
    return module
"""
MODEL = ("--model", "blocks.py:trained", "--data", "digits", "--profile", "small.yaml")
# beyond what structure gives without training
SMALLER = ("--size-mb", "0.12x", *BUDGETS[2:])


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = residual(tmp_path_factory.mktemp("recipes"))
    (folder / "mine.py").write_text(RECIPES, encoding="utf-8")
    return folder


def shell(user: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `autocompress ARGUMENTS`, brief."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=user,
        env={**os.environ, "COLUMNS": str(WIDE), "BRIEF_STEPS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def training_in(plan: Path) -> dict[str, object]:
    (step,) = (s for s in yaml.safe_load(plan.read_text())["rounds"][-1] if s["technique"] == "distillation")
    return dict(step["settings"])


def test_a_training_function_trains_and_its_plan_is_applied_with_it_alone(user: Path) -> None:
    code, said = shell(user, "run", *MODEL, *SMALLER, "--recipe", "mine.py:train", "--out", "own")
    assert code in (0, 1, 3), said
    assert str(training_in(user / "own" / "plan.yaml")["recipe"]).startswith("train ")
    code, said = shell(user, "apply", "own/plan.yaml", *MODEL, "--recipe", "mine.py:train", "--out", "again")
    assert code in (0, 1, 3), said
    assert (user / "own" / "model.onnx").read_bytes() == (user / "again" / "model.onnx").read_bytes()
    code, said = shell(user, "apply", "own/plan.yaml", *MODEL, "--out", "without")
    assert code == 2
    assert "was trained by the recipe train" in said
    assert "Traceback" not in said


def test_numbers_of_a_recipe_stand_in_the_plan_which_needs_it_no_more(user: Path) -> None:
    code, said = shell(user, "run", *MODEL, *SMALLER, "--recipe", "mine.py:numbers", "--out", "numbers")
    assert code in (0, 1, 3), said
    settings = training_in(user / "numbers" / "plan.yaml")
    assert (settings["optimizer"], settings["learning_rate"], settings["batch"]) == ("adamw", 0.002, 64)
    code, said = shell(user, "apply", "numbers/plan.yaml", *MODEL, "--out", "numbers-again")
    assert code in (0, 1, 3), said
    assert (user / "numbers" / "model.onnx").read_bytes() == (user / "numbers-again" / "model.onnx").read_bytes()


def test_planning_says_how_it_would_train(user: Path) -> None:
    code, said = shell(user, "plan", *MODEL, *SMALLER, "--recipe", "mine.py:train", "--verbose")
    assert code == 0, said
    assert "by the recipe's train " in said
