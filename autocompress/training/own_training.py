"""Training by a function of the user's own, and what is checked of the module that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.training_recipe import TrainingRecipe
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.data.augmentation_bank import Batch
from autocompress.errors import DataError

WHERE = "recipe"


class Batches:
    """The training batches of a function `train(module, teacher, batches)`: pairs of inputs and targets.

    Inputs are a tensor, a tuple or a dict of tensors, as the model is called; all are on the device that trains. They
    can be gone through once. `len()` is the number planned; where the time is short they end sooner, and `done`, the
    share of the training that is done, still goes to 1.
    """

    def __init__(
        self, steps: int, at: Callable[[int], Batch], example: Example, done: Callable[[int], float | None]
    ) -> None:
        self._steps, self._at, self._example, self._done = steps, at, example, done
        self.taken = 0
        self.done = 0.0

    def __len__(self) -> int:
        """The number of batches planned."""
        return self._steps

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Further batches, until the training is over."""
        while (done := self._done(self.taken)) is not None:
            self.done = done
            batch = self._at(self.taken)
            yield _as_called(batch.inputs, self._example), batch.targets
            # counted once the function asks for more: it has then used this one
            self.taken += 1
        self.done = 1.0


def _as_called(inputs: dict[str, torch.Tensor], example: Example) -> Any:
    if example.by_name:
        return inputs
    tensors = tuple(inputs.values())
    return tensors[0] if len(tensors) == 1 else tensors


def trained_by(recipe: TrainingRecipe, module: nn.Module, teacher: nn.Module, batches: Batches) -> nn.Module:
    """What the recipe's `train` makes of the module: the same architecture with finite weights.

    Raises:
        DataError: when it raises or returns anything else; it names the user's own line.
    """
    assert recipe.train is not None
    before = {name: tensor.shape for name, tensor in module.state_dict().items()}
    kind = type(module)
    with raised_by_user(WHERE, "train raised", recipe.train), torch.enable_grad():
        found = recipe.train(module, teacher, batches)
    if fault := _fault(found, kind, before):
        raise DataError(
            with_line(f"train returned {fault}", definition_of(recipe.train)),
            where=WHERE,
            hint="Return the module that it was given, trained: the same layers, finite weights.",
        )
    trained: nn.Module = found
    return trained


def _fault(found: Any, kind: type, before: dict[str, torch.Size]) -> str:
    """What is wrong with a returned module, empty where nothing is."""
    if not isinstance(found, nn.Module):
        return kind_of(found)
    state = found.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    other = [name for name in {**before, **shapes} if before.get(name) != shapes.get(name)]
    if type(found) is not kind or other:
        return f"another network ({other[0]} differs)" if other else f"a {type(found).__name__}, not a {kind.__name__}"
    infinite = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    return f"weights that are not finite ({infinite[0]})" if infinite else ""
