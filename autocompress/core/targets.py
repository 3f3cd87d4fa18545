"""Targets of items: one array, or several in a tuple or a dict for models with several heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

S = TypeVar("S")
# the only name in the targets of items that have none
UNLABELLED = "no target"
Targets = NDArray[Any] | tuple[NDArray[Any], ...] | dict[str, NDArray[Any]]


def arrays_in(targets: Targets) -> dict[str, NDArray[Any]]:
    """The arrays of targets by their name or place; a single one has the name `targets`."""
    if isinstance(targets, dict):
        return dict(targets)
    if isinstance(targets, tuple):
        return {str(place): array for place, array in enumerate(targets)}
    return {"targets": targets}


def rows_in(targets: Targets) -> int:
    """The number of items that targets belong to."""
    return len(next(iter(arrays_in(targets).values())))


def mapped(change: Callable[[Any], S], targets: Any) -> S | tuple[S, ...] | dict[str, S]:
    """The targets with each array, or tensor, changed by a function."""
    if isinstance(targets, dict):
        return {name: change(array) for name, array in targets.items()}
    if isinstance(targets, tuple):
        return tuple(change(array) for array in targets)
    return change(targets)


def like(form: Targets, arrays: Mapping[str, NDArray[Any]]) -> Targets:
    """Targets of the same form from other arrays, by the names of `arrays_in`."""
    if isinstance(form, dict):
        return dict(arrays)
    return tuple(arrays.values()) if isinstance(form, tuple) else arrays["targets"]


def joined(parts: Sequence[Targets]) -> Targets:
    """Targets of several batches as those of one."""
    columns = {key: np.concatenate([arrays_in(part)[key] for part in parts]) for key in arrays_in(parts[0])}
    return like(parts[0], columns)


def unlabelled(items: int) -> Targets:
    """What stands for the targets of training items that have none."""
    return {UNLABELLED: np.zeros(items, dtype=np.int64)}


def is_unlabelled(targets: Any) -> bool:
    """True for what `unlabelled` gives."""
    return isinstance(targets, dict) and list(targets) == [UNLABELLED]
