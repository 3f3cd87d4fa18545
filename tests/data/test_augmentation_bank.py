from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

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
