"""The optimizer of a recovery: one of ours by its name, or one that the user's function makes."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.core.training_recipe import TrainingRecipe
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError
from autocompress.training.schedule import Schedule

# usual decay of weights: of SGD on images (He et al., 2016, use 1e-4 to 5e-4), of AdamW torch's own default
WEIGHT_DECAY = {"sgd": 5e-4, "adamw": 0.01}
# name of the optimizer in a plan where the recipe has a function for it
OWN = "own"
# key of a parameter group: its rate relative to that of the first group
RELATIVE_RATE = "relative_rate"


def make_optimizer(student: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer of the student's parameters that have gradients; its rate is set step by step.

    Raises:
        DataError: when the recipe's function fails.
    """
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    if callable(schedule.recipe.optimizer):
        return own_optimizer(parameters, schedule.recipe)
    decay = WEIGHT_DECAY[schedule.optimizer] if schedule.weight_decay is None else schedule.weight_decay
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=0.0, momentum=schedule.momentum, weight_decay=decay, nesterov=True)


def own_optimizer(parameters: list[nn.Parameter], recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """The optimizer that the recipe's function makes; its groups keep the ratios of their rates.

    Raises:
        DataError: when it raises or returns anything else.
    """
    make = recipe.optimizer
    assert callable(make)
    with raised_by_user("recipe", "optimizer raised", make):
        found = make(parameters)
    if not isinstance(found, torch.optim.Optimizer):
        raise DataError(
            with_line(f"optimizer returned {kind_of(found)}", definition_of(make)),
            where="recipe",
            hint="Return a torch.optim.Optimizer of the parameters that it is given.",
        )
    first = float(found.param_groups[0]["lr"])
    for group in found.param_groups:
        group[RELATIVE_RATE] = float(group["lr"]) / first if first else 1.0
    return found
