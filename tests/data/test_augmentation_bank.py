from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from autocompress.core.data_sources import as_source
from autocompress.core.runtime import Example
from autocompress.core.source import Array, ArraySource, Inputs, whole
from autocompress.data.augmentation import crop_flip
from autocompress.data.augmentation_bank import AugmentationBank, Batch
from autocompress.errors import DataError

ITEMS = np.random.default_rng(0).standard_normal((50, 1, 8, 8)).astype(np.float32)
PART = whole("train", ArraySource((ITEMS,), np.arange(50)))
EXAMPLE = Example((ITEMS[:2],))


def bank(views: int, seed: int = 0) -> AugmentationBank:
    return AugmentationBank(PART, EXAMPLE, batch=10, seed=seed, views=views)


def epoch(views: AugmentationBank, number: int) -> list[Batch]:
    return [views.at(number * views.per_epoch + place, crop_flip) for place in range(views.per_epoch)]


def test_an_epoch_holds_every_item_once() -> None:
    for number in range(3):
        targets = torch.cat([batch.targets for batch in epoch(bank(2), number)])
        assert sorted(targets.tolist()) == list(range(50))


def test_a_key_stands_for_the_same_items_with_the_same_augmentation() -> None:
    first = {batch.key: batch for number in range(2) for batch in epoch(bank(2), number)}
    later = [batch for number in range(2, 6) for batch in epoch(bank(2), number)]
    assert len(first) == 10
    assert {batch.key for batch in later} == set(first)
    for batch in later:
        assert torch.equal(batch.inputs["input"], first[batch.key].inputs["input"])
        assert torch.equal(batch.targets, first[batch.key].targets)
    # but the batches of a view come in another order
    assert [batch.key for batch in later[:5]] != [batch.key for batch in epoch(bank(2), 0)]


def test_fresh_views_never_come_again() -> None:
    keys = [batch.key for number in range(6) for batch in epoch(bank(0), number)]
    assert len(set(keys)) == len(keys)


def test_another_seed_is_another_bank() -> None:
    assert not torch.equal(bank(2).at(0).targets, bank(2, seed=1).at(0).targets)


def test_augmentation_leaves_torchs_generator_as_it_was() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    bank(2).at(0, crop_flip)
    assert torch.equal(torch.rand(3), wanted)


def test_items_of_many_reads_keep_their_places_and_doubles_become_floats() -> None:
    values = np.arange(1200, dtype=np.float64).reshape(-1, 1)
    held = AugmentationBank(
        whole("train", ArraySource((values,), values[:, 0])), Example((values[:1],)), batch=1200, seed=0
    ).at(0)
    assert held.inputs["input"].dtype == torch.float32
    assert torch.equal(held.inputs["input"][:, 0].double(), held.targets)
    assert sorted(held.targets.tolist()) == list(range(1200))


def test_items_of_another_shape_are_named() -> None:
    class Ragged:
        def __len__(self) -> int:
            return 513

        def read(self, indices: Sequence[int]) -> tuple[Inputs, Array]:
            return (np.zeros((len(indices), 1 if 512 in indices else 8), np.float32),), np.zeros(len(indices))

    held = AugmentationBank(whole("train", Ragged()), EXAMPLE, batch=10, seed=0)
    with pytest.raises(DataError, match=r"data: input: items have shape \(8,\), and item \d+ has \(1,\)"):
        [held.at(step) for step in range(held.per_epoch)]


class Noisy(Dataset[Any]):
    """Items with a random transform of their own."""

    def __init__(self, items: int = 12, size: int = 3) -> None:
        self.items, self.size = items, size

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full(self.size, index + np.random.rand() / 2, np.float32), index


def drawn(steps: Sequence[int], *, draws: bool, workers: int = 0, seed: int = 0) -> list[list[float]]:
    """What the items of each step are, by item."""
    source: Any = as_source(DataLoader(Noisy(), num_workers=workers), trains=True)
    example = Example((np.zeros((1, 3), np.float32),))
    held = AugmentationBank(whole("train", source), example, batch=12, seed=seed, views=3, draws=draws)
    return [held.at(step).inputs["input"][:, 0].sort().values.tolist() for step in steps]


def test_a_datasets_own_transforms_draw_anew_in_each_view_and_the_same_in_each_process() -> None:
    views = drawn(range(6), draws=True)
    assert len({tuple(view) for view in views}) == 3
    # the fourth epoch shows the first view again, which the teacher has answered
    assert views[3:] == views[:3]
    assert drawn([4, 2], draws=True) == [views[4], views[2]]
    assert drawn(range(6), draws=True, workers=2) == views
    assert drawn([0], draws=True, seed=1) != views[:1]
    # as for judging
    assert len({tuple(view) for view in drawn(range(3), draws=False)}) == 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_training_set_is_never_in_memory_as_a_whole() -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6

    images: Any = as_source(Noisy(100, 250_000), trains=True)
    example = Example((np.zeros((1, 250_000), np.float32),))
    held = AugmentationBank(whole("train", images), example, batch=5, seed=0)
    held.at(0)
    start, most = resident_mb(), 0.0
    for step in range(held.per_epoch):
        held.at(step)
        most = max(most, resident_mb() - start)
    # all of them are 100 MB, a batch is 5
    assert most < 50
