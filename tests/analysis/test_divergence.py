from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.analysis import divergence as divergence_module
from autocompress.analysis.divergence import Divergence
from autocompress.core.runtime import Example
from autocompress.core.source import ArraySource, Split, whole
from autocompress.pruning.blocks import droppable_blocks, skipping

ITEMS = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
EXAMPLE = Example((ITEMS[:2],))


class Scaled(nn.Module):
    """A residual block whose branch counts as much as its factor says."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.factor * self.body(x)


@pytest.fixture
def part() -> Split:
    return whole("train", ArraySource((ITEMS,), np.zeros(64, dtype=np.int64)))


@pytest.mark.parametrize("outputs", [3, 1])
def test_what_counts_less_moves_the_outputs_less(part: Split, outputs: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(*(Scaled(f) for f in (2.0, 0.01, 0.5))), nn.Linear(8, outputs))
    kinds = droppable_blocks(module, EXAMPLE)
    divergence = Divergence(module, EXAMPLE, part)
    found = {}
    for name in kinds:
        with skipping(module, [name], kinds):
            found[name] = divergence.of(module)
    assert found["0.1"] < found["0.2"] < found["0.0"]
    assert found["0.1"] < 0.01
    assert divergence.of(module) == 0.0


def test_items_are_looked_at_in_portions_with_the_same_result(part: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, other = nn.Linear(8, 3), nn.Linear(8, 3)
    monkeypatch.setattr(divergence_module, "SECONDS", 1e9)
    at_once = Divergence(module, EXAMPLE, part).of(other)
    sizes: list[int] = []
    other.register_forward_hook(lambda _module, inputs, _outputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(divergence_module, "LEAST_ITEMS", 10)
    assert Divergence(module, EXAMPLE, part).of(other) == pytest.approx(at_once, rel=1e-5)
    assert sizes == [10, 10, 10, 10, 10, 10, 4]


def test_outputs_that_are_not_finite_are_infinitely_far(part: Split) -> None:
    module = nn.Sequential(nn.Linear(8, 3))
    divergence = Divergence(module, EXAMPLE, part)
    with torch.no_grad():
        module[0].bias.fill_(float("nan"))
    assert divergence.of(module) == float("inf")


class Heads(nn.Module):
    """Two heads, the first of classes; the states' items are their second axis."""

    def __init__(self, moved: tuple[str, ...] = ()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kinds, self.boxes = nn.Linear(8, 3), nn.Linear(8, 4)
        for name in moved:
            with torch.no_grad():
                self.get_submodule(name).weight[:, 0] += 0.1

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        boxes = 1e3 * self.boxes(x)
        return {
            "ids": x.long(),
            "logits": self.kinds(x),
            "boxes": (boxes[None], boxes.mean()),
            "anchors": torch.ones(2),
        }


def test_all_floating_outputs_count_relative_to_their_own_spread(part: Split) -> None:
    divergence = Divergence(Heads(), EXAMPLE, part)
    assert divergence.of(Heads()) == 0.0
    kinds, boxes, both = (divergence.of(Heads(moved)) for moved in (("kinds",), ("boxes",), ("kinds", "boxes")))
    assert 0.0 < kinds < 0.01
    assert 0.0 < boxes < 0.1
    assert both == pytest.approx(kinds + boxes)


def test_chosen_outputs_alone_count(part: Split) -> None:
    chosen = Example((ITEMS[:2],), outputs=("logits",))
    divergence = Divergence(Heads(), chosen, part)
    assert divergence.of(Heads(("boxes",))) == 0.0
    alone = Divergence(Heads().kinds, EXAMPLE, part)
    assert divergence.of(Heads(("kinds",))) == pytest.approx(alone.of(Heads(("kinds",)).kinds))
