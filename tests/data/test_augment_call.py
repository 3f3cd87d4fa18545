"""Augmentation of inputs alone, and of inputs and targets together."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from autocompress.core.runtime import Example
from autocompress.core.source import ArraySource, whole
from autocompress.data.augment_call import augmented, takes_targets
from autocompress.data.augmentation_bank import AugmentationBank
from autocompress.errors import DataError

ROWS = torch.arange(8.0).reshape(4, 1, 1, 2)


def both(images: Any, masks: Any) -> Any:
    return images.flip(3), masks.flip(3)


def noisy(images: torch.Tensor, strength: float = 0.1) -> torch.Tensor:
    return images + strength


class Both:
    def __call__(self, inputs: Any, targets: Any) -> Any:
        return inputs, targets


def test_the_signature_says_what_is_given() -> None:
    assert [takes_targets(one) for one in (both, Both(), lambda inputs, targets=None: (inputs, targets))] == [True] * 3
    assert [takes_targets(one) for one in (noisy, partial(torch.flip, dims=(3,)), partial(both, masks=1))] == [
        False
    ] * 3


def test_masks_move_along_with_images() -> None:
    inputs, targets = augmented(both, {"input": ROWS}, ROWS + 10, by_name=False)
    assert torch.equal(inputs["input"], ROWS.flip(3))
    assert torch.equal(targets, (ROWS + 10).flip(3))


def test_inputs_and_targets_come_in_the_form_of_the_model_and_the_data() -> None:
    def change(inputs: Any, targets: Any) -> Any:
        return {name: one + 1 for name, one in inputs.items()}, [one + 2 for one in targets]

    # a sequence of any length is no image, and is given too
    inputs, targets = augmented(change, {"left": ROWS, "ids": ROWS[:, 0, 0]}, (ROWS, ROWS), by_name=True)
    assert torch.equal(inputs["ids"], ROWS[:, 0, 0] + 1)
    assert isinstance(targets, tuple)
    assert torch.equal(targets[1], ROWS + 2)
    inputs, _ = augmented(lambda inputs, targets: (inputs[::-1], targets), {"a": ROWS, "b": -ROWS}, ROWS, by_name=False)
    assert torch.equal(inputs["a"], -ROWS)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda inputs, targets: inputs, "not inputs and targets"),
        (lambda inputs, targets: (inputs, targets[:1]), "as targets for a tensor"),
        (lambda inputs, targets: (None, targets), "returned None as inputs"),
        (lambda inputs, targets: (inputs, {"a": targets}), "a dict as targets"),
        (lambda inputs, targets: targets.boxes, "raised AttributeError"),
    ],
)
def test_what_is_returned_wrongly_names_the_line(augment: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"{message}.*test_augment_call\.py, line") as caught:
        augmented(augment, {"input": ROWS}, ROWS, by_name=False)
    assert caught.value.where == "augment"


def test_a_view_of_the_bank_has_images_and_masks_turned_alike() -> None:
    def by_chance(images: Any, masks: Any) -> Any:
        chosen = torch.rand(len(images), 1, 1, 1) < 0.5
        return torch.where(chosen, -images, images), torch.where(chosen, -masks, masks)

    values = np.arange(1, 41, dtype=np.float32).reshape(40, 1, 1, 1)
    bank = AugmentationBank(whole("train", ArraySource((values,), values)), Example((values[:1],)), batch=40, seed=0)
    first, second, again = bank.at(0, by_chance), bank.at(1, by_chance), bank.at(0, by_chance)
    assert torch.equal(first.inputs["input"], first.targets)
    assert set(first.targets.sign().flatten().tolist()) == {-1.0, 1.0}
    assert not torch.equal(first.targets.sort(0).values, second.targets.sort(0).values)
    assert torch.equal(first.targets, again.targets)
