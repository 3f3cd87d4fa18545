"""Items that turn out to be unusable when they are read to be judged, and parts of a source."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autocompress.core.artifact import TensorSpec
from autocompress.core.runtime import feeds
from autocompress.core.source import ArraySource, Split
from autocompress.core.streams import PartSource, Request, seed_of
from autocompress.errors import ENDS_THE_RUN, UnusableItemError

FILE: Any = SimpleNamespace(fixed_batch=None, inputs=(TensorSpec("x", "float32", (None, 2)),))


def test_an_item_that_is_not_finite_is_named_by_its_number_and_ends_the_run() -> None:
    values = np.zeros((12, 2), np.float32)
    values[9, 1] = np.nan
    split = Split("test", ArraySource((values,), np.zeros(12)), np.array([1, 4, 5, 9, 11]))
    with pytest.raises(UnusableItemError, match=r"not finite \(first in item 9\)") as caught:
        list(feeds(split, FILE, 3))
    assert isinstance(caught.value, ENDS_THE_RUN)
    assert caught.value.exit_code == 2


def test_items_of_another_shape_are_named_from_the_first_on() -> None:
    class Ragged:
        def __len__(self) -> int:
            return 6

        def read(self, indices: Any) -> Any:
            return (np.zeros((len(indices), 2 if max(indices) < 4 else 3), np.float32),), np.zeros(len(indices))

    with pytest.raises(UnusableItemError, match=r"has shape \(2, 3\), the model takes \(n, 2\) \(from item 4 on\)"):
        list(feeds(Split("test", Ragged(), np.arange(6)), FILE, 2))


def test_a_part_has_the_items_of_its_source() -> None:
    part = PartSource(ArraySource((np.arange(10),), np.arange(10)), np.array([7, 2]))
    assert len(part) == 2
    assert part.read([1])[1].tolist() == [2]
    assert [batch[1].tolist() for batch in part.stream([Request((0,)), Request((1, 0), 3)])] == [[7], [2, 7]]


def test_the_fixed_view_is_seeded_by_the_item_alone() -> None:
    assert seed_of(17, 0) == 17
    assert len({seed_of(item, view) for item in range(20) for view in range(1, 20)}) == 380
