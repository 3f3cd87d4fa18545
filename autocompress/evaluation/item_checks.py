"""Checks of items by their values, when the data are opened and when items are read to be judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from autocompress.core.class_labels import require_labels
from autocompress.core.source import Array, Inputs
from autocompress.core.targets import Targets, arrays_in
from autocompress.core.task import Task
from autocompress.errors import DataError, UnusableItemError


@dataclass(frozen=True, eq=False)
class ItemChecks:
    """Checks of items of one field of a task: finite values, and training labels that are classes.

    `classes` is the number of the model's classes, None where its outputs are no class scores.
    """

    task: Task
    field: str
    classes: int | None

    def __call__(self, items: Sequence[int], inputs: Inputs, targets: Targets) -> None:
        """Check a batch of items with these numbers.

        Raises:
            DataError: when a value is not finite, or a training label is none of the model's classes. Targets of a
                score of the user's own may hold what they like.
        """
        where = f"{self.task.name}: {self.field}"
        trains = self.field == "train"
        if trains and self.task.chooses_classes and self.classes is not None and isinstance(targets, np.ndarray):
            require_labels(targets, self.classes, trains=True, where=where)
        named = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
        for name, array in named:
            _require_finite(array, items, f"input {name!r}", where)
        if isinstance(self.task.score, str):
            for array in arrays_in(targets).values():
                _require_finite(array, items, "the target", where)


def _require_finite(array: Array, items: Sequence[int], what: str, where: str) -> None:
    """Raise DataError, naming the first item, when an array with a row per item is not finite."""
    if array.dtype.kind != "f" or len(array) != len(items) or np.isfinite(array).all():
        return
    place = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
    raise DataError(
        f"{what} of item {items[place]} is not finite (NaN or infinity).",
        where=where,
        hint="Remove or replace such items.",
    )


def require_counted(task: Task, targets: Targets, where: str, items: Sequence[int]) -> None:
    """Raise UnusableItemError when an item has no token that counts: its score would say nothing."""
    if task.score != "token_accuracy" or not isinstance(targets, np.ndarray) or targets.ndim < 2:
        return
    empty = np.flatnonzero((targets < 0).reshape(len(targets), -1).all(1))
    if len(empty):
        raise UnusableItemError(
            f"item {items[int(empty[0])]} has no label that counts: all are below 0.",
            where=where,
            hint="Leave such items out; with score 0 before and after they would make every loss look smaller.",
        )


@contextmanager
def labels_end_the_run() -> Iterator[None]:
    """Turn an error about labels into one that ends the run: no candidate can be judged on such an item."""
    try:
        yield
    except DataError as error:
        if error.where != "labels":
            raise
        raise UnusableItemError(error.message, where=error.where, hint=error.hint) from error


@contextmanager
def items_end_no_run() -> Iterator[None]:
    """Turn an error about an item into one that ends the trial alone."""
    try:
        yield
    except UnusableItemError as error:
        raise DataError(error.message, where=error.where, hint=error.hint) from error
