"""Recipes: training with what the user lays down, up to a training function of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.plan import Setting
from autocompress.core.runtime import Example
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.core.technique import Context
from autocompress.core.training_recipe import TrainingRecipe, as_recipe
from autocompress.data.recipe_spec import load_recipe
from autocompress.errors import DataError, PlanError, UsageError
from autocompress.techniques.distillation import Distillation
from autocompress.training.cost import measure_training
from autocompress.training.recovery import Files, Watch, recover
from autocompress.training.schedule import Schedule

INPUTS = np.random.default_rng(0).standard_normal((256, 6)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int64)
TASK = Task(test=(INPUTS, LABELS), train=(INPUTS, LABELS))
EXAMPLE = Example((INPUTS[:2],))
SETTINGS: dict[str, Setting] = {"steps": 20, "batch": 32, "seed": 0, "learning_rate": 0.05, "optimizer": "sgd"}


def network(seed: int, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 2))


def train(module: nn.Module, teacher: nn.Module, batches: Any) -> nn.Module:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for inputs, targets in batches:
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - batches.done)
        optimizer.zero_grad()
        with torch.no_grad():
            wanted = teacher(inputs)
        found = module(inputs)
        (nn.functional.mse_loss(found, wanted) + nn.functional.cross_entropy(found, targets)).backward()
        optimizer.step()
    return module


def trained(recipe: TrainingRecipe, folder: Path, schedule: Schedule | None = None, watch: Watch | None = None) -> Any:
    schedule = schedule or Schedule(20, 32, 0, 0.05, recipe=recipe)
    return recover(network(3), network(1).eval(), TASK, EXAMPLE, schedule, Files(folder / "t.pt"), watch or Watch())


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_a_training_function_of_ones_own_trains_and_gives_the_same_weights_again(tmp_path: Path) -> None:
    recipe = TrainingRecipe(train=train)
    found = trained(recipe, tmp_path)
    torch.manual_seed(77)
    assert same(found, trained(recipe, tmp_path))
    assert not same(found, network(3))
    assert not found.training


def test_batches_end_sooner_where_the_time_is_short_and_end_there_again(tmp_path: Path) -> None:
    changed: list[Schedule] = []
    seen: list[float] = []

    def watched(module: nn.Module, teacher: nn.Module, batches: Any) -> nn.Module:
        assert len(batches) == 20
        found = train(module, teacher, batches)
        seen.extend([batches.taken, batches.done])
        return found

    recipe = TrainingRecipe(train=watched)
    left = iter([100.0, 100.0, 0.0])
    cut = trained(recipe, tmp_path, watch=Watch(lambda: next(left), changed.append))
    assert seen == [3, 1.0]
    assert changed[-1].cuts == ((3, 3),)
    assert same(cut, trained(recipe, tmp_path, changed[-1]))


def nothing(module: nn.Module, teacher: nn.Module, batches: Any) -> None:
    pass


def another(module: nn.Module, teacher: nn.Module, batches: Any) -> nn.Module:
    return network(1, 5)


def broken(module: nn.Module, teacher: nn.Module, batches: Any) -> nn.Module:
    return module.missing


def infinite(module: nn.Module, teacher: nn.Module, batches: Any) -> nn.Module:
    with torch.no_grad():
        module[0].weight.fill_(float("nan"))
    return module


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (nothing, r"train returned None \(.*test_recipe.py, line \d+: def nothing"),
        (another, r"train returned another network \(0.weight differs\) \(.*def another"),
        (broken, r"train raised AttributeError.*test_recipe.py, line \d+: return module.missing"),
        (infinite, r"train returned weights that are not finite \(0.weight\)"),
    ],
)
def test_what_a_training_function_does_wrong_is_told_with_its_line(tmp_path: Path, function: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        trained(TrainingRecipe(train=function), tmp_path)


def test_optimizer_schedule_and_loss_of_ones_own(tmp_path: Path) -> None:
    seen: dict[str, list[Any]] = {"rates": [], "losses": []}

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": parameters[:1], "lr": 0.2}, {"params": parameters[1:], "lr": 0.1}]
        optimizer = torch.optim.SGD(groups)
        optimizer.register_step_pre_hook(
            lambda one, *_: seen["rates"].append([group["lr"] for group in one.param_groups])
        )
        return optimizer

    def loss(outputs: torch.Tensor, teaching: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen["losses"].append(targets.shape)
        return (outputs - teaching).abs().mean()

    recipe = TrainingRecipe(optimizer=make, schedule=lambda done: 1 - done, loss=loss, learning_rate=0.4)
    trained(recipe, tmp_path, Schedule(10, 32, 0, 0.4, "own", recipe=recipe))
    assert len(seen["losses"]) == 10
    assert seen["rates"][0] == [0.4, 0.2]
    assert seen["rates"][5] == pytest.approx([0.2, 0.1])


def test_what_a_recipe_lays_down_is_what_training_is_planned_with() -> None:
    recipe = TrainingRecipe(
        optimizer="sgd", learning_rate=0.0123456789, batch=16, weight_decay=0.0, loss=lambda o, t, y: o.sum()
    )
    found = measure_training(network(3), network(1).eval(), TASK, EXAMPLE, recipe=recipe)
    assert found is not None
    assert (found.batch, found.learning_rate, found.optimizer, found.weight_decay) == (16, 0.0123456789, "sgd", 0.0)
    assert found.recipe == recipe.name
    assert found.rate_reason == "0.012, as the recipe has it"


def test_planning_alone_says_that_it_tested_no_rate() -> None:
    found = measure_training(network(3), network(1).eval(), TASK, EXAMPLE, most_items=16)
    assert found is not None
    assert found.rate_reason == "the default 0.0002; only a run tests others"


def test_a_plan_names_the_code_that_trained_and_is_not_applied_without_it(tmp_path: Path) -> None:
    recipe = TrainingRecipe(train=train)
    context = Context(TASK, EXAMPLE, whole("train", TASK.train), tmp_path, network(1).eval(), recipe=recipe)
    settings = {**SETTINGS, "recipe": recipe.name}
    assert recipe.name.startswith("train ")
    Distillation().apply(network(3), settings, context)
    assert Distillation().describe([settings]) == "distilled 20 steps (by train)"
    for given, told in ((None, "none was given"), (TrainingRecipe(train=another), "another .* was given")):
        with pytest.raises(PlanError, match=f"trained by the recipe train .*{told}"):
            Distillation().apply(network(3), settings, Context(*list(vars(context).values())[:8], given))
    with pytest.raises(PlanError, match="was not trained by a recipe"):
        Distillation().apply(network(3), SETTINGS, context)


def test_a_recipe_of_numbers_needs_no_code() -> None:
    assert TrainingRecipe(learning_rate=0.1).name == ""
    assert TrainingRecipe(learning_rate=0.1).identity != TrainingRecipe(learning_rate=0.2).identity


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rate": 1}, "no field 'rate'"),
        (5, "is a int|is an int"),
        ({"batch": 1.5}, "batch cannot be 1.5"),
        ({"learning_rate": 0.0}, "learning_rate cannot be 0.0"),
        ({"optimizer": "lion"}, "optimizer cannot be 'lion'"),
        ({"loss": "mse"}, "loss cannot be 'mse'"),
        ({"train": train, "loss": print}, "gives train and also loss"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_told(given: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        as_recipe(given)


def test_a_spec_names_a_recipe_a_function_that_makes_one_or_a_training_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from autocompress import TrainingRecipe\n"
        "fast = TrainingRecipe(learning_rate=0.5)\n"
        "def make():\n    return TrainingRecipe(batch=3)\n"
        "def train(module, teacher, batches):\n    return module\n"
        "def wrong(a):\n    return a\n"
    )
    found = [load_recipe(f"{file}:{name}") for name in ("fast", "make", "train")]
    assert found[0].learning_rate == 0.5
    assert found[1].batch == 3
    assert found[2].train.__name__ == "train"
    for name in ("wrong", "nowhere"):
        with pytest.raises(UsageError):
            load_recipe(f"{file}:{name}")
    with pytest.raises(UsageError, match="names no recipe"):
        load_recipe("fast")
