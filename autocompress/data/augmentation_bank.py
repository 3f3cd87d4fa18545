"""A seeded bank of augmented views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.core.targets import Targets, arrays_in, like, mapped, rows_in
from autocompress.core.task import Augment
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.data.example_inputs import in_dtype_of
from autocompress.errors import DataError
from autocompress.system.randomness import seeded


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of a view. `key` is equal whenever the same items come with the same augmentation."""

    key: int
    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]


class AugmentationBank:
    """Augmented batches of a split: equal seed and step give the same batch, also in a resumed run.

    An epoch shows one of `views` views of all items: a view fixes which items meet in a batch and how they are
    augmented, so that a teacher's outputs can be cached. Later epochs show the views again, their batches in another
    order. 0 views means a fresh one for every epoch. Items are held in memory as the model takes them.
    """

    def __init__(self, split: Split, example: Example, *, batch: int, seed: int, views: int = 0) -> None:
        inputs, self._targets = _gather(split, example)
        self._inputs = {name: torch.from_numpy(array) for name, array in inputs.items()}
        self._items = rows_in(self._targets)
        self._seed, self._views, self._batch = seed, views, min(batch, self._items)
        self.per_epoch = max(1, self._items // self._batch)

    def at(self, step: int, augment: Augment | None = None) -> Batch:
        """The batch of one step, with tensors by input name; images are augmented.

        Raises:
            DataError: when `augment` raises or gives no batch of as many items.
        """
        epoch, place = divmod(step, self.per_epoch)
        view = epoch % self._views if self._views else epoch
        if view != epoch:
            place = int(self._order(self.per_epoch, 7_368_787 + epoch)[place])
        items = self._order(self._items, view)[place * self._batch : (place + 1) * self._batch]
        inputs = {name: tensor[items] for name, tensor in self._inputs.items()}
        key = view * self.per_epoch + place
        if augment is not None:
            # augmentation draws from the global generators, which are restored afterwards
            with seeded(self._seed * 1_000_003 + key):
                inputs = {name: _augmented(augment, tensor) for name, tensor in inputs.items()}
        return Batch(key, inputs, mapped(lambda array: torch.from_numpy(array)[items], self._targets))

    def _order(self, n: int, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        return torch.randperm(n, generator=generator)


def _augmented(augment: Augment, images: torch.Tensor) -> torch.Tensor:
    if images.ndim != 4:
        return images
    with raised_by_user("augment", function=augment):
        found = augment(images)
    if not isinstance(found, torch.Tensor) or found.shape[:1] != images.shape[:1]:
        message = f"returned {kind_of(found)} for a tensor of shape {tuple(images.shape)}"
        hint = "Return a tensor of as many items, in the shape and type that the model takes."
        raise DataError(with_line(message, definition_of(augment)), where="augment", hint=hint)
    return found


def _gather(split: Split, example: Example) -> tuple[dict[str, np.ndarray], Targets]:
    arrays: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    # the form of the targets, whose arrays are filled below
    form: Targets = np.empty(0)
    start = 0
    for inputs, targets in split.batches(512):
        for name, column in Example(inputs).arrays.items():
            arrays[name] = _put(arrays.get(name), in_dtype_of(example, name, column), start, len(split), name)
        for name, column in arrays_in(targets).items():
            labels[name] = _put(labels.get(name), column, start, len(split), name)
        form = targets
        start += rows_in(targets)
    return arrays, like(form, labels)


def _put(array: np.ndarray | None, rows: np.ndarray, start: int, length: int, name: str) -> np.ndarray:
    # filled batch by batch: joined at the end, the items would be held twice
    if array is None:
        array = np.empty((length, *rows.shape[1:]), rows.dtype)
    if rows.shape[1:] != array.shape[1:]:
        raise DataError(
            f"items have shape {array.shape[1:]}, and from item {start} on {rows.shape[1:]}.",
            where=f"data: {name}",
            hint="Pad them to one shape.",
        )
    array[start : start + len(rows)] = rows
    return array
