from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.moves import GONE, Kept, Move, Moves, MoveSpace, Network
from autocompress.core.plan import Stage, Step
from autocompress.core.runtime import Example
from autocompress.core.technique import Context, StructureTechnique
from autocompress.data.copies import with_shared_weights
from autocompress.data.module import call
from autocompress.errors import TechniqueError
from autocompress.structure.space import PruningSpace
from autocompress.techniques import BlockDropping, ChannelPruning
from autocompress.testing.structure_technique_suite import network_of, total

EXAMPLE = Example((np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32),))
TECHNIQUES: tuple[StructureTechnique, ...] = (BlockDropping(), ChannelPruning())
DROPPING, PRUNING = (technique.name for technique in TECHNIQUES)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(torch.relu(self.wide(x)))


class Streaming(nn.Module):
    """Four blocks, and a layer before them whose width is that of what they add up; it stands after them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.stem, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))


class Reading(nn.Module):
    """The same on tokens: what is before the blocks is a table, after which nothing is named."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.blocks, self.head = nn.Sequential(*(Block() for _ in range(4))), nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.table(ids)).mean(1))


def space_of(module: nn.Module, example: Example = EXAMPLE, *ignore: str) -> PruningSpace:
    network = network_of(module.eval(), example, ignore=ignore)
    return PruningSpace(network, {technique.name: technique.moves(network) for technique in TECHNIQUES})


def stacked() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(*(Block() for _ in range(4))), nn.Linear(8, 2))


def built(space: PruningSpace, moves: Moves) -> nn.Module:
    """The network with the steps of these moves applied, without data."""
    techniques = {technique.name: technique for technique in TECHNIQUES}
    module = with_shared_weights(space.network.module)
    for step in space.steps(moves):
        context = Context(None, space.network.example, None, folder=None)  # type: ignore[arg-type]  # needs no files
        module = techniques[step.technique].apply(module, step.settings, context)
    return module


# what the techniques on the shelf can take from a network together


def test_all_blocks_and_their_inner_widths_can_go() -> None:
    space = space_of(stacked())
    assert space.spaces[DROPPING].names == ("0.0", "0.1", "0.2", "0.3")
    assert set(space.spaces[PRUNING].names) >= {f"0.{i}.wide" for i in range(4)}


def test_what_is_ignored_neither_goes_nor_gets_narrower_and_is_named() -> None:
    space = space_of(stacked(), EXAMPLE, "0.1", "0.2.wide")
    assert space.spaces[DROPPING].names == ("0.0", "0.3")
    cut = set(space.spaces[PRUNING].names)
    assert not cut & {"0.1.wide", "0.2.wide"}
    assert {"0.0.wide", "0.3.wide"} <= cut
    assert space.spaces[PRUNING].left_alone["0.2.wide"] == "it is declared to be ignored."


def test_the_smallest_structure_lacks_four_fifths_of_the_blocks_and_three_quarters_of_every_group() -> None:
    space = space_of(Streaming())
    blocks, channels = space.steps(space.smallest())
    gone = str(blocks.settings["blocks"]).split()
    assert len(gone) == int(0.8 * 4)
    (left,) = {f"blocks.{i}" for i in range(4)} - set(gone)
    assert set(str(channels.settings["groups"]).split()) == {f"{left}.wide", f"{left}.narrow"}
    assert channels.settings["ratio"] == 0.75
    facts = space.network.inspect(built(space, space.smallest()))
    assert [layer.name for layer in facts.layers] == ["stem", f"{left}.wide", f"{left}.narrow", "head"]
    assert [layer.output_shape for layer in facts.layers] == [(4,), (4,), (4,), (2,)]


def test_where_nothing_can_go_the_smallest_structure_has_no_steps() -> None:
    space = space_of(nn.Sequential(nn.Linear(8, 2)))
    assert space.smallest() == Moves()
    assert space.steps(Moves()) == ()
    assert space.samples() == []
    assert list(space.options(Moves(), space.spaces)) == []


@pytest.mark.parametrize("module", [Streaming(), Reading()])
@pytest.mark.parametrize("gone", [("blocks.0",), ("blocks.0", "blocks.1"), ("blocks.2",)])
def test_a_group_whose_first_layer_went_with_its_block_is_named_by_its_next(
    module: nn.Module, gone: tuple[str, ...]
) -> None:
    example = EXAMPLE if isinstance(module, Streaming) else Example((np.ones((2, 4), np.int64),))
    space = space_of(module, example)
    widths = [move for move in space.options(Moves(), [PRUNING]) if "layers" in move.target]
    assert len(widths) == 1
    moves = Moves.of([*(Move(DROPPING, name) for name in gone), *widths])
    blocks, channels = space.steps(moves)
    assert blocks.settings["blocks"] == " ".join(gone)
    left = [name for name in ("blocks.0", "blocks.1", "blocks.2") if name not in gone]
    assert channels.settings["groups"] == f"{left[0]}.narrow"
    assert total(space.network.inspect(built(space, moves)).layers) == pytest.approx(
        total(space.layers(moves)), rel=0.02
    )


def test_a_group_that_went_as_a_whole_is_not_named() -> None:
    space = space_of(stacked())
    inside = next(move for move in space.options(Moves(), [PRUNING]) if "layers" not in move.target)
    blocks, channels = space.steps(Moves.of([Move(DROPPING, "0.1"), Move(DROPPING, "0.3"), inside]))
    assert blocks.settings["blocks"] == "0.1 0.3"
    assert channels.settings["groups"] == "0.0.wide 0.2.wide"
    everything = Moves.of([*(Move(DROPPING, f"0.{i}") for i in range(4)), inside])
    assert [step.technique for step in space.steps(everything)] == [DROPPING]


def test_what_went_with_a_block_is_no_option_any_more() -> None:
    space = space_of(stacked())
    assert [move.technique for move in space.options(Moves(), [PRUNING])] == [PRUNING]
    dropped = Moves.of(Move(DROPPING, f"0.{i}") for i in range(4))
    assert list(space.options(dropped, [PRUNING])) == []
    # and as many blocks as may go are gone
    assert list(space.options(dropped, [DROPPING])) == []


def test_a_look_at_blocks_and_widths_sees_what_their_steps_build() -> None:
    space = space_of(stacked())
    moves = Moves.of([Move(DROPPING, "0.1"), *space.options(Moves(), [PRUNING])])
    assert len(moves) == 2

    def outputs(module: nn.Module) -> torch.Tensor:
        return next(iter(call(module, EXAMPLE).values()))

    wanted = outputs(built(space, moves))
    distances = [
        space.look(taken, lambda module: float((outputs(module) - wanted).abs().max()))
        for taken in (moves, moves.by(DROPPING), moves.by(PRUNING), Moves())
    ]
    assert distances[0] == pytest.approx(0.0, abs=1e-6)
    assert min(distances[1:]) > 1e-3


def test_samples_tell_each_kind_of_block_and_of_channels_from_the_others() -> None:
    space = space_of(Streaming())
    samples = space.samples()
    kinds = {move.target for move in space.options(Moves(), [PRUNING])}
    assert len(kinds) == 2
    half = Moves.of([Move(DROPPING, "blocks.0"), Move(DROPPING, "blocks.1")])
    assert set(samples) == {half, *(Moves.of([Move(PRUNING, kind, 0.5)]) for kind in kinds)}
    saved = [space.network.facts.macs - total(space.layers(moves))[0] for moves in samples]
    assert saved == sorted(saved, reverse=True)


# what the space makes of the moves of any techniques


class Handmade(MoveSpace):
    """Moves that keep what the test says; it notes what it is asked with."""

    rebuilds = False

    def __init__(self, technique: str, kept: Mapping[tuple[str, float], Mapping[str, Kept]], log: list[str]) -> None:
        self._technique, self._kept, self._log = technique, kept, log
        self.names, self.left_alone = tuple(target for target, _ in kept), {}
        self.asked: list[tuple[Moves, set[str]]] = []

    def options(self, taken: Moves, gone: Collection[str]) -> Iterator[Move]:
        self.asked.append((taken, set(gone)))
        yield from (Move(self._technique, *one) for one in self._kept if one[1] > taken.level(one[0]))

    def kept(self, move: Move) -> Mapping[str, Kept]:
        return self._kept[move.target, move.level]

    def steps(self, moves: Moves, gone: Collection[str]) -> tuple[Step, ...]:
        self.asked.append((moves, set(gone)))
        return tuple(Step(self._technique, Stage.STRUCTURE, {move.target: move.level}) for move in moves)

    @contextmanager
    def applied(self, module: nn.Module, moves: Moves) -> Iterator[nn.Module]:
        self._log.append(f"{self._technique} applied")
        if any(move.level == 1.0 and move.target == "impossible" for move in moves):
            raise TechniqueError("cannot be made.", where=self._technique)
        try:
            yield nn.Sequential(module) if self.rebuilds else module
        finally:
            self._log.append(f"{self._technique} put back")

    def samples(self) -> Iterator[Moves]:
        yield from (Moves.of([Move(self._technique, *one)]) for one in self._kept)

    def smallest(self) -> Moves:
        return Moves.of(Move(self._technique, *one) for one in self._kept)


class Rebuilding(Handmade):
    rebuilds = True


HALF = Kept(0.5, 0.5)
LOG: list[str] = []


@pytest.fixture
def first() -> Handmade:
    LOG.clear()
    return Handmade(
        "first", {("0.1", 1.0): {"0.1.wide": GONE, "0.1.narrow": GONE}, ("impossible", 1.0): {"1": GONE}}, LOG
    )


@pytest.fixture
def second() -> Rebuilding:
    kept = {
        ("head", 0.5): {"1": HALF},
        ("inner", 0.25): {"0.0.wide": Kept(0.75, 0.75), "0.0.narrow": Kept(0.75, 0.8)},
        ("inner", 0.5): {"0.0.wide": HALF, "0.0.narrow": HALF},
        ("stream", 0.5): {"0.0.narrow": HALF, "0.1.narrow": HALF},
    }
    return Rebuilding("second", kept, LOG)


@pytest.fixture
def handmade(first: Handmade, second: Rebuilding) -> PruningSpace:
    network: Network = network_of(stacked().eval(), EXAMPLE)
    return PruningSpace(network, {"first": first, "second": second})


def moves_of(*moves: tuple[str, str, float]) -> Moves:
    return Moves.of(Move(*one) for one in moves)


def test_layers_that_went_do_not_count_and_shares_of_all_techniques_multiply(handmade: PruningSpace) -> None:
    moves = moves_of(
        ("first", "0.1", 1.0), ("second", "head", 0.5), ("second", "inner", 0.25), ("second", "stream", 0.5)
    )
    left = {layer.name: (layer.macs, layer.parameters) for layer in handmade.layers(moves)}
    whole = {layer.name: (layer.macs, layer.parameters) for layer in handmade.network.facts.layers}
    assert whole["0.0.narrow"] == (128, 136)
    assert left == {
        "0.0.wide": (96, 108),
        "0.0.narrow": (48, round(136 * 0.8 * 0.5)),
        **{name: whole[name] for i in (2, 3) for name in (f"0.{i}.wide", f"0.{i}.narrow")},
        "1": (8, 9),
    }
    assert handmade.layers(Moves()) == list(handmade.network.facts.layers)


def test_steps_come_technique_by_technique_and_each_is_told_what_those_before_it_take(
    handmade: PruningSpace, first: Handmade, second: Handmade
) -> None:
    moves = moves_of(("second", "head", 0.5), ("first", "0.1", 1.0))
    assert [step.technique for step in handmade.steps(moves)] == ["first", "second"]
    assert first.asked == [(moves.by("first"), set())]
    assert second.asked == [(moves.by("second"), {"0.1.wide", "0.1.narrow"})]


def test_options_go_on_from_a_techniques_own_moves_and_the_layers_that_others_take(
    handmade: PruningSpace, first: Handmade, second: Handmade
) -> None:
    moves = moves_of(("second", "inner", 0.25), ("first", "0.1", 1.0))
    offered = list(handmade.options(moves, ["second"]))
    assert {move.technique for move in offered} == {"second"}
    assert second.asked == [(moves.by("second"), {"0.1.wide", "0.1.narrow"})]
    assert first.asked == []
    both = list(handmade.options(moves, ["first", "second"]))
    assert both[-len(offered) :] == offered
    # what it takes itself is nothing that others take
    assert first.asked == [(moves.by("first"), set())]


def test_what_rebuilds_the_module_is_applied_before_what_only_hooks_it_and_all_is_put_back(
    handmade: PruningSpace,
) -> None:
    moves = moves_of(("first", "0.1", 1.0), ("second", "head", 0.5))
    seen: list[nn.Module] = []

    def look(module: nn.Module) -> float:
        LOG.append("looked")
        seen.append(module)
        return 0.25

    assert handmade.look(moves, look) == 0.25
    assert LOG == ["second applied", "first applied", "looked", "first put back", "second put back"]
    assert seen[0] is not handmade.network.module
    LOG.clear()
    # who takes nothing is not asked
    assert handmade.look(moves.by("first"), look) == 0.25
    assert LOG == ["first applied", "looked", "first put back"]
    assert seen[1] is handmade.network.module


def test_what_cannot_be_made_is_infinitely_far_and_what_was_made_is_put_back(handmade: PruningSpace) -> None:
    moves = moves_of(("first", "impossible", 1.0), ("second", "head", 0.5))
    assert handmade.look(moves, lambda module: 0.0) == float("inf")
    assert LOG == ["second applied", "first applied", "second put back"]


def test_the_smallest_takes_what_leaves_least_by_each_technique(
    handmade: PruningSpace, first: Handmade, second: Handmade
) -> None:
    assert handmade.smallest() == Moves.of([*first.smallest(), *second.smallest()])


def test_samples_of_all_techniques_come_in_the_order_of_the_work_that_they_save(handmade: PruningSpace) -> None:
    samples = handmade.samples()
    saved = [handmade.network.facts.macs - total(handmade.layers(moves))[0] for moves in samples]
    # both layers of a block, halves and quarters of two layers, all and half of a small one
    assert saved == [256, 128, 128, 64, 16, 8]
    assert samples[0] == moves_of(("first", "0.1", 1.0))
    assert samples[-2:] == [moves_of(("first", "impossible", 1.0)), moves_of(("second", "head", 0.5))]
