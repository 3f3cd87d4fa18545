from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.facts import LayerFact
from autocompress.core.moves import Kept, Move, Moves, Network
from autocompress.core.plan import Stage, Step
from autocompress.core.runtime import Example
from autocompress.errors import TechniqueError
from autocompress.pruning import channel_moves
from autocompress.pruning.channel_groups import Group, cut, prunable_groups
from autocompress.pruning.channel_moves import ALL_GROUPS, LEAST_WORK, WIDTH_LEVELS, ChannelMoves, worthwhile_kinds
from autocompress.pruning.selection import Selection
from autocompress.testing.structure_technique_suite import network_of

EXAMPLE = Example((np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32),))
WIDE, THIN = "Linear, 32", "Linear, 16"


class Block(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, inner), nn.Linear(inner, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(torch.relu(self.wide(x)))


def network(*inner: int, **more: object) -> Network:
    """Blocks of these inner widths, one after the other, named `0.0`, `0.1` and so on; their stream cannot be cut."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(*(Block(width) for width in inner)), nn.Linear(8, 2))
    return network_of(module.eval(), EXAMPLE, **more)


def moves_of(*inner: int, **more: object) -> ChannelMoves:
    return ChannelMoves("pruning", network(*inner, **more))


def at(level: float, *kinds: str) -> Moves:
    return Moves.of(Move("pruning", kind, level) for kind in kinds)


def step(groups: str, ratio: float, multiple: int = 4) -> Step:
    settings = {"scope": "uniform", "importance": "group_magnitude", "multiple": multiple}
    return Step("pruning", Stage.STRUCTURE, {"groups": groups, "ratio": ratio, **settings})


# kinds


def test_groups_of_one_kind_go_together_and_the_kinds_with_most_work_come_first() -> None:
    space = moves_of(16, 32, 16, 32, 32)
    assert space.kinds == {WIDE: ("0.1.wide", "0.3.wide", "0.4.wide"), THIN: ("0.0.wide", "0.2.wide")}
    assert space.names == ("0.0.wide", "0.1.wide", "0.2.wide", "0.3.wide", "0.4.wide")


def groups_and_facts(*work: int) -> tuple[list[Group], list[LayerFact]]:
    made = network(16)
    layers = [
        LayerFact(f"layer{i}", "Linear", made.facts.layers[0].kind, 10, macs, (), (), {}) for i, macs in enumerate(work)
    ]
    return [Group(f"layer{i}", 8, f"kind {i}", (f"layer{i}",), (f"layer{i}",)) for i in range(len(work))], layers


def test_kinds_that_do_hardly_any_work_are_left_out_and_of_the_others_the_five_with_most() -> None:
    groups, layers = groups_and_facts(100, 700, 600, 500, 400, 300, 1)
    facts = replace(network(16).facts, layers=tuple(layers))
    assert list(worthwhile_kinds(groups, facts)) == ["kind 1", "kind 2", "kind 3", "kind 4", "kind 5"]
    groups, layers = groups_and_facts(980, 19, 1)
    facts = replace(facts, layers=tuple(layers))
    assert LEAST_WORK > 19 / 1000
    assert list(worthwhile_kinds(groups, facts)) == ["kind 0"]
    assert worthwhile_kinds([], facts) == {}


# levels


def test_levels_of_a_kind_follow_each_other_and_each_leaves_less_than_the_one_before() -> None:
    space = moves_of(32, 32)
    taken, levels = Moves(), []
    while options := list(space.options(taken, ())):
        (move,) = options
        levels.append(move.level)
        taken = taken.plus(move)
    assert tuple(levels) == WIDTH_LEVELS
    kept = [space.kept(Move("pruning", WIDE, level)) for level in levels]
    for layer in ("0.0.wide", "0.0.narrow", "0.1.wide", "0.1.narrow"):
        for one, other in pairwise([Kept(1.0, 1.0), *(level[layer] for level in kept)]):
            assert other.macs < one.macs
            assert other.parameters < one.parameters


def test_what_a_level_keeps_of_each_layer_is_what_the_cut_leaves_of_it() -> None:
    made = network(16, 32)
    space = ChannelMoves("pruning", made)
    before = {layer.name: layer for layer in made.facts.layers}
    for level in WIDTH_LEVELS:
        cut_out = cut(made.module, EXAMPLE, Selection(level, ("0.1.wide",), multiple=4))
        after = {layer.name: layer for layer in made.inspect(cut_out).layers}
        kept = space.kept(Move("pruning", WIDE, level))
        assert kept.keys() == {"0.1.wide", "0.1.narrow"}
        for name, share in kept.items():
            assert share.macs * before[name].macs == pytest.approx(after[name].macs)
            assert share.parameters * before[name].parameters == pytest.approx(after[name].parameters)


def test_a_level_that_the_multiple_does_not_allow_is_no_option() -> None:
    # of 16 channels in steps of 16 none can go, of 32 half and three quarters
    space = moves_of(16, 32, multiple=16)
    assert [(move.target, move.level) for move in space.options(Moves(), ())] == [(WIDE, 0.5)]
    assert space.kept(Move("pruning", THIN, 0.5)) == {}
    assert list(space.options(at(0.75, WIDE), ())) == []
    assert list(space.samples()) == [at(0.5, WIDE)]


def test_kinds_at_their_last_level_are_no_options_and_the_others_go_on() -> None:
    space = moves_of(16, 32)
    taken = Moves.of([Move("pruning", WIDE, 0.75), Move("pruning", THIN, 0.25)])
    assert list(space.options(taken, ())) == [Move("pruning", THIN, 0.5)]


def test_a_kind_whose_groups_others_take_is_no_option_any_more() -> None:
    space = moves_of(32, 16, 32)
    gone = {"0.0.wide", "0.0.narrow", "0.2.wide", "0.2.narrow"}
    assert {move.target for move in space.options(Moves(), {"0.0.wide", "0.0.narrow"})} == {WIDE, THIN}
    assert {move.target for move in space.options(Moves(), gone)} == {THIN}


# steps


def test_each_kind_is_a_step_with_its_groups_and_what_is_kept_a_multiple() -> None:
    space = moves_of(32, 16, 32, multiple=8)
    taken = Moves.of([Move("pruning", WIDE, 0.25), Move("pruning", THIN, 0.5)])
    assert set(space.steps(taken, ())) == {step("0.0.wide 0.2.wide", 0.25, 8), step("0.1.wide", 0.5, 8)}
    assert space.steps(Moves(), ()) == ()


def test_groups_that_others_take_are_not_in_a_step() -> None:
    space = moves_of(32, 16, 32)
    assert space.steps(at(0.5, WIDE), {"0.0.wide", "0.0.narrow"}) == (step("0.2.wide", 0.5),)
    assert space.steps(at(0.5, THIN), {"0.1.wide", "0.1.narrow"}) == ()
    assert space.steps(at(0.75, ALL_GROUPS), {"0.0.wide", "0.0.narrow"}) == (step("0.1.wide 0.2.wide", 0.75),)


# the smallest, and samples


def test_the_smallest_has_the_last_level_of_every_group_those_that_are_not_worth_a_look_included(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel_moves, "MOST_KINDS", 1)
    made = network(32, 16)
    space = ChannelMoves("pruning", made)
    assert list(space.kinds) == [WIDE]
    smallest = space.smallest()
    assert smallest == at(WIDTH_LEVELS[-1], ALL_GROUPS)
    assert space.steps(smallest, ()) == (step("0.0.wide 0.1.wide", WIDTH_LEVELS[-1]),)
    # what is known of it is what is known of the kinds that are worth a look
    assert space.kept(*smallest) == space.kept(Move("pruning", WIDE, WIDTH_LEVELS[-1]))
    with space.applied(made.module, smallest) as looked:
        assert [layer.output_shape for layer in made.inspect(looked).layers[:4]] == [(8,), (8,), (4,), (8,)]


@pytest.mark.parametrize("level", WIDTH_LEVELS)
def test_all_groups_together_keep_what_each_kind_keeps_at_that_level(level: float) -> None:
    # three layers in a row: the one in between is in both kinds
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))
    made = network_of(module.eval(), EXAMPLE)
    space = ChannelMoves("pruning", made)
    both = space.kept(Move("pruning", ALL_GROUPS, level))
    wide, thin = (space.kept(Move("pruning", kind, level)) for kind in (WIDE, THIN))
    assert both["2"].macs == pytest.approx(wide["2"].macs * thin["2"].macs)
    assert (both["0"], both["4"]) == (wide["0"], thin["4"])
    cut_out = made.inspect(cut(made.module, EXAMPLE, Selection(level, multiple=4)))
    assert {layer.name: both[layer.name].macs * layer.macs for layer in made.facts.layers} == {
        layer.name: pytest.approx(layer.macs) for layer in cut_out.layers
    }


def test_without_groups_there_are_no_moves_and_the_reasons_are_named() -> None:
    space = ChannelMoves("pruning", network_of(nn.Sequential(nn.Linear(8, 2)).eval(), EXAMPLE))
    assert space.names == ()
    assert space.smallest() == Moves()
    assert list(space.samples()) == list(space.options(Moves(), ())) == []
    assert space.left_alone == {"0": "its channels are the model's output."}


def test_samples_are_each_kind_at_half_of_its_width() -> None:
    assert list(moves_of(32, 16, 32).samples()) == [at(0.5, WIDE), at(0.5, THIN)]


# looks


def test_a_network_that_cannot_be_traced_is_left_alone_as_a_whole_with_the_reason() -> None:
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.second(self.first(x))

    space = ChannelMoves("pruning", network_of(Untraceable().eval(), EXAMPLE))
    assert space.names == ()
    (reason,) = space.left_alone.values()
    assert reason
    assert space.smallest() == Moves()


def test_groups_that_are_ignored_are_left_alone_with_that_reason() -> None:
    space = moves_of(32, 16, 32, ignore=("0.0.wide",))
    assert space.names == ("0.1.wide", "0.2.wide")
    assert space.left_alone["0.0.wide"] == "it is declared to be ignored."
    assert space.kinds[WIDE] == ("0.2.wide",)


def test_out_of_time_the_first_level_of_the_heaviest_kind_is_still_looked_at() -> None:
    space = moves_of(16, 32, out_of_time=lambda: True)
    assert [(move.target, move.level) for move in space.options(Moves(), ())] == [(WIDE, WIDTH_LEVELS[0])]
    assert list(space.options(at(WIDTH_LEVELS[0], WIDE), ())) == []


def test_the_network_with_widths_is_made_once_for_looks_that_follow_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = network(32, 16)
    space = ChannelMoves("pruning", made)
    cuts: list[Selection] = []

    def counted(module: nn.Module, example: Example, selection: Selection) -> nn.Module:
        cuts.append(selection)
        return cut(module, example, selection)

    monkeypatch.setattr(channel_moves, "cut", counted)
    for taken in (at(0.5, WIDE), at(0.5, WIDE), at(0.5, WIDE, THIN)):
        with space.applied(made.module, taken):
            pass
    assert [selection.groups for selection in cuts] == [("0.0.wide",), ("0.1.wide",), ("0.0.wide",)]
    assert {(selection.ratio, selection.multiple) for selection in cuts} == {(0.5, 4)}


def test_what_cannot_be_cut_is_a_technique_error() -> None:
    space = moves_of(32, multiple=16)
    made = network(32, multiple=16)
    with pytest.raises(TechniqueError, match="removes no channel"), space.applied(made.module, at(0.25, WIDE)):
        pass


def test_a_group_has_the_names_of_its_layers_that_it_can_be_called_after_in_the_order_of_the_network() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.table = nn.Sequential(Block(16), Block(16)), nn.Embedding(10, 8)
            self.stem, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.blocks(self.stem(self.table(ids))).mean(1))

    found = prunable_groups(Reading().eval(), Example((np.ones((2, 4), np.int64),))).groups
    stream = next(group for group in found if len(group.layers) > 1)
    assert stream.names == ("blocks.0.narrow", "blocks.1.narrow", "stem")
    assert stream.name == stream.names[0]
    assert set(stream.layers) == set(stream.names)
