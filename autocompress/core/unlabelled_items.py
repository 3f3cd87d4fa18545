"""Training items without targets: only the original can teach them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from autocompress.core.columns import TARGET_KEYS
from autocompress.core.source import ArraySource, DatasetSource, Source, to_array
from autocompress.core.targets import UNLABELLED, is_unlabelled, unlabelled
from autocompress.errors import DataError
from autocompress.system.randomness import seeded


@dataclass(frozen=True, eq=False)
class _WithoutTargets:
    """A dataset of inputs alone, as one with placeholders for targets."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        inputs = item[0] if isinstance(item, tuple | list) else item
        return inputs, {UNLABELLED: 0}


def unlabelled_source(data: Any) -> Source | None:
    """A source of training items that have no target, None for everything else.

    It is an array or a dict of arrays, alone or as `(inputs, None)`, or a Dataset whose items are an array or tensor,
    alone or in a tuple, or a mapping without a column of targets.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and data[1] is None:
        data = data[0]
    if isinstance(data, Mapping) and data and all(_is_array(value) for value in data.values()):
        arrays = {str(name): to_array(value) for name, value in data.items()}
        return ArraySource(arrays, unlabelled(len(next(iter(arrays.values())))))
    if _is_array(data):
        array = to_array(data)
        return ArraySource((array,), unlabelled(len(array)))
    if isinstance(data, list) and len(data) == 2 and _is_array(data[1]):
        # arrays of inputs and targets
        return None
    listed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, tuple | str | bytes)
    if listed and not isinstance(data, Mapping | Source) and _has_no_targets(data):
        return DatasetSource(_WithoutTargets(data))
    return None


def _has_no_targets(dataset: Any) -> bool:
    # an item that cannot be read is told with its place when it is needed
    with seeded(0), suppress(Exception):
        return len(dataset) > 0 and _is_item_without_target(dataset[0])
    return False


def require_no_loss(source: Source | None, loss: Any) -> None:
    """Raise DataError where a loss would need targets that the training items do not have."""
    if isinstance(source, ArraySource):
        without = is_unlabelled(source.targets)
    else:
        without = isinstance(source, DatasetSource) and isinstance(source.dataset, _WithoutTargets)
    if without and loss is not None:
        raise DataError(
            "holds items without targets, and the loss takes targets.",
            where="train",
            hint="Leave loss out, so that the original alone teaches, or give targets.",
        )


def _is_array(value: Any) -> bool:
    return len(getattr(value, "shape", ())) > 0


def _is_item_without_target(item: Any) -> bool:
    if isinstance(item, Mapping):
        return not any(name in item for name in TARGET_KEYS)
    return _is_array(item) or (isinstance(item, tuple | list) and len(item) == 1 and _is_array(item[0]))
