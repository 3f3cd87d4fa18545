"""Checks of items by their targets, when the data are opened and when items are read to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from autocompress.core.targets import Targets
from autocompress.core.task import Task
from autocompress.errors import DataError, UnusableItemError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
