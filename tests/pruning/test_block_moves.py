from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.moves import GONE, Move, Moves
from autocompress.core.plan import Stage, Step
from autocompress.core.runtime import Example
from autocompress.pruning.block_moves import LARGEST_SHARE, BlockMoves, block_kinds
from autocompress.testing.structure_technique_suite import network_of

EXAMPLE = Example((np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32),))
TOKENS = Example((np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32),))


class Block(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, inner), nn.Linear(inner, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(torch.relu(self.wide(x)))


class Attending(nn.Module):
    """Layers that torch counts as one, and that give a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x, x, x)[0]
        return self.head(x.mean(1))


class Handing(nn.Module):
    """Blocks that hand more on to each other than what they take."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Giving() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x, more = layer(x)
            x = x + more
        return x


class Giving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner(x), x


def moves_of(*inner: int, ignore: tuple[str, ...] = ()) -> BlockMoves:
    """Blocks of these inner widths, one after the other, named `0.0`, `0.1` and so on."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(*(Block(width) for width in inner)), nn.Linear(8, 2))
    return BlockMoves("dropping", network_of(module.eval(), EXAMPLE, ignore=ignore))


def dropped(*blocks: str) -> Moves:
    return Moves.of(Move("dropping", name) for name in blocks)


def targets(moves: Moves) -> set[str]:
    return {move.target for move in moves}


def test_each_block_can_go_that_is_still_there_up_to_the_largest_share() -> None:
    space = moves_of(8, 8, 8, 8, 8)
    assert space.names == ("0.0", "0.1", "0.2", "0.3", "0.4")
    assert list(space.options(Moves(), ())) == [Move("dropping", name) for name in space.names]
    assert list(space.options(dropped("0.1", "0.3", "0.4"), ())) == [Move("dropping", name) for name in ("0.0", "0.2")]
    assert int(LARGEST_SHARE * 5) == 4
    assert list(space.options(dropped("0.0", "0.1", "0.3", "0.4"), ())) == []


def test_nothing_is_left_of_a_blocks_layers_and_all_of_the_others() -> None:
    space = moves_of(*[8] * 11)
    # no name that begins alike is meant
    assert dict(space.kept(Move("dropping", "0.1"))) == {"0.1.wide": GONE, "0.1.narrow": GONE}
    assert dict(space.kept(Move("dropping", "0.10"))) == {"0.10.wide": GONE, "0.10.narrow": GONE}


def test_a_block_that_is_one_layer_itself_goes_as_that_layer() -> None:
    space = BlockMoves("dropping", network_of(Attending().eval(), TOKENS))
    assert space.names == ("layers.0", "layers.1", "layers.2")
    assert dict(space.kept(Move("dropping", "layers.1"))) == {"layers.1": GONE}


def test_blocks_stand_in_one_step_in_the_order_of_the_network_whatever_went_first() -> None:
    space = moves_of(*[8] * 11)
    taken = dropped("0.10").plus(Move("dropping", "0.2")).plus(Move("dropping", "0.0"))
    wanted = (Step("dropping", Stage.STRUCTURE, {"blocks": "0.0 0.2 0.10"}),)
    assert space.steps(taken, ()) == wanted
    assert space.steps(Moves(), ()) == ()


@pytest.mark.parametrize(("module", "example"), [(moves_of, EXAMPLE), (Attending, TOKENS)])
def test_blocks_are_skipped_for_a_look_and_put_back(module: object, example: Example) -> None:
    torch.manual_seed(0)
    net = Attending() if module is Attending else nn.Sequential(*(Block(8) for _ in range(3)), nn.Linear(8, 2))
    network = network_of(net.eval(), example)
    space = BlockMoves("dropping", network)
    inputs = next(iter(example.tensors().values()))
    parts = dict(net.named_modules())
    with torch.no_grad():
        before = net(inputs)
        with space.applied(net, dropped(*space.names[1:])) as looked:
            after = looked(inputs)
        assert not torch.allclose(after, before)
        assert torch.equal(net(inputs), before)
    assert dict(net.named_modules()) == parts


def test_samples_are_the_first_half_of_each_kind_of_block() -> None:
    samples = list(moves_of(8, 8, 16, 8, 16).samples())
    assert samples == [dropped("0.0", "0.1"), dropped("0.2")]
    assert list(moves_of(8, 8, 8, 8, 8).samples()) == [dropped("0.0", "0.1", "0.2")]


def test_blocks_of_one_kind_have_layers_of_the_same_types_and_shapes() -> None:
    space = moves_of(8, 16, 8)
    kinds = block_kinds(space._facts, space.names)
    assert kinds == {"0.0": "blocks like 0.0", "0.1": "blocks like 0.1", "0.2": "blocks like 0.0"}


def test_the_smallest_lacks_four_fifths_of_the_blocks_those_with_most_work_and_weights_first() -> None:
    assert targets(moves_of(8, 16, 4, 24, 12).smallest()) == {"0.0", "0.1", "0.3", "0.4"}
    # of two blocks one may go, the heavier
    assert targets(moves_of(8, 16).smallest()) == {"0.1"}


def test_where_no_block_can_go_there_are_no_moves() -> None:
    space = BlockMoves("dropping", network_of(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), EXAMPLE))
    assert space.names == ()
    assert space.smallest() == Moves()
    assert list(space.samples()) == list(space.options(Moves(), ())) == []


def test_blocks_that_the_network_does_not_run_without_are_left_alone_and_named() -> None:
    space = BlockMoves("dropping", network_of(Handing().eval(), EXAMPLE))
    assert space.names == ()
    assert space.left_alone == dict.fromkeys(
        ("layers.0", "layers.1", "layers.2"), "the network does not run without it."
    )


@pytest.mark.parametrize("ignored", ["0.1", "0.1.wide", "*.1"])
def test_what_is_ignored_does_not_go_nor_does_what_holds_it(ignored: str) -> None:
    assert moves_of(8, 8, 8, ignore=(ignored,)).names == ("0.0", "0.2")
