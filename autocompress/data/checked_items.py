"""Items checked as they are read: values that are finite, training labels that are classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autocompress.core.class_labels import require_labels
from autocompress.core.source import Array, Inputs, Source
from autocompress.core.targets import Targets, arrays_in
from autocompress.core.task import Task
from autocompress.errors import DataError


@dataclass(frozen=True, eq=False)
class CheckedItems:
    """The items of one field of a task, checked when they are read; a `Source` itself.

    `classes` is the number of the model's classes, None where its outputs are no class scores.
    """

    task: Task
    field: str
    source: Source
    classes: int | None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        """See `Source.read`.

        Raises:
            DataError: when a value is not finite, or a training label is none of the model's classes. Targets of a
                score of the user's own may hold what they like.
        """
        inputs, targets = self.source.read(indices)
        where = f"{self.task.name}: {self.field}"
        trains = self.field == "train"
        if trains and self.task.chooses_classes and self.classes is not None and isinstance(targets, np.ndarray):
            require_labels(targets, self.classes, trains=True, where=where)
        named = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
        for name, array in named:
            _require_finite(array, indices, f"input {name!r}", where)
        if isinstance(self.task.score, str):
            for array in arrays_in(targets).values():
                _require_finite(array, indices, "the target", where)
        return inputs, targets


def _require_finite(array: Array, indices: Sequence[int], what: str, where: str) -> None:
    """Raise DataError with the index of the first item whose row is not finite."""
    if array.dtype.kind != "f" or len(array) != len(indices) or np.isfinite(array).all():
        return
    place = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
    raise DataError(
        f"{what} of item {indices[place]} is not finite (NaN or infinity).",
        where=where,
        hint="Remove or replace such items.",
    )
