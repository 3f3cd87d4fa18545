"""Calls the task's augmentation on a batch: on its images alone, or on inputs and targets together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from autocompress.core.targets import arrays_in
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError

Tensors = dict[str, torch.Tensor]
# what a second argument is called that has a default and still stands for the targets
TARGETS = ("target", "targets")


def takes_targets(augment: Callable[..., Any]) -> bool:
    """True for `augment(inputs, targets)`.

    It needs two arguments, or its second one is called `targets` or `target`.
    """
    try:
        parameters = list(inspect.signature(augment).parameters.values())
    except (TypeError, ValueError):
        return False
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(places) > 1 and (places[1].default is places[1].empty or places[1].name in TARGETS)


def augmented(augment: Callable[..., Any], inputs: Tensors, targets: Any, *, by_name: bool) -> tuple[Tensors, Any]:
    """Inputs and targets of a batch, augmented.

    `augment(inputs)` gets each tensor of shape `(n, c, h, w)` alone, and targets stay. `augment(inputs, targets)` gets
    the inputs as the model does (a tensor, a tuple, or with `by_name` a dict) and the targets as the data give them,
    and returns both in the same form.

    Raises:
        DataError: when it raises or gives something else.
    """
    if not takes_targets(augment):
        return {name: _alone(augment, tensor) for name, tensor in inputs.items()}, targets
    single = len(inputs) == 1 and not by_name
    given: Any = inputs if by_name else next(iter(inputs.values())) if single else tuple(inputs.values())
    with raised_by_user("augment", function=augment):
        found = augment(given, targets)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise _wrong(augment, f"returned {kind_of(found)}, not inputs and targets", "Return (inputs, targets).")
    new = dict(zip(inputs, _listed(augment, found[0], given, "inputs"), strict=True))
    _listed(augment, found[1], targets, "targets")
    return new, tuple(found[1]) if isinstance(targets, tuple) else found[1]


def _alone(augment: Callable[..., Any], images: torch.Tensor) -> torch.Tensor:
    if images.ndim != 4:
        return images
    with raised_by_user("augment", function=augment):
        found = augment(images)
    if not isinstance(found, torch.Tensor) or found.shape[:1] != images.shape[:1]:
        message = f"returned {kind_of(found)} for a tensor of shape {tuple(images.shape)}"
        raise _wrong(augment, message, "Return a tensor of as many items, in the shape and type that the model takes.")
    return found


def _listed(augment: Callable[..., Any], found: Any, given: Any, what: str) -> list[torch.Tensor]:
    """The tensors of what was returned, if it has the form and the number of items of what was given."""
    rows = len(next(iter(arrays_in(given).values())))
    tensors: list[Any] = []
    if isinstance(given, dict):
        tensors = [found[name] for name in given] if isinstance(found, dict) and set(found) == set(given) else []
    elif isinstance(given, tuple):
        tensors = list(found) if isinstance(found, tuple | list) and len(found) == len(given) else []
    else:
        tensors = [found]
    if not tensors or not all(isinstance(one, torch.Tensor) and one.ndim and len(one) == rows for one in tensors):
        message = f"returned {kind_of(found)} as {what} for {kind_of(given)} of {rows} items"
        raise _wrong(augment, message, "Return both in the form they came in, with as many items.")
    return tensors


def _wrong(augment: Callable[..., Any], message: str, hint: str) -> DataError:
    return DataError(with_line(message, definition_of(augment)), where="augment", hint=hint)
