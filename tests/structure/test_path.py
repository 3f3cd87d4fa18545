from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.budget import Budget
from autocompress.core.facts import Facts
from autocompress.core.runtime import Example
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.planner.target import Target, target_of
from autocompress.structure.path import GreedySearch, way_of
from autocompress.structure.space import Cut, PruningSpace, block_kinds

NAMES = tuple(f"0.{i}" for i in range(5))
# what leaving a block out changes and saves
HARM = dict(zip(NAMES, (5.0, 0.1, 1.0, 0.7, 3.0), strict=True))
SAVES = dict(zip(NAMES, (0.1, 0.1, 0.1, 0.02, 0.1), strict=True))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)

    def forward(self, x: object) -> object:
        return x + self.body(x)


@pytest.fixture(scope="module")
def facts() -> Facts:
    module = nn.Sequential(nn.Sequential(*(Block() for _ in NAMES)), nn.Linear(8, 2))
    return inspect_module(module, Example((np.zeros((1, 8), np.float32),)))


def anatomy_of(facts: Facts) -> PruningSpace:
    return PruningSpace(facts, block_kinds(facts, NAMES), {}, {}, 1)


def descent(target: Target, asked: list[Cut], **more: bool) -> GreedySearch:
    def predict(cut: Cut) -> tuple[float, float]:
        return 0.5 - sum(SAVES[name] for name in cut.blocks), 0.3 - 0.03 * len(cut.blocks)

    def diverges(cut: Cut) -> float:
        asked.append(cut)
        return sum(HARM[name] for name in cut.blocks)

    return GreedySearch(predict, diverges, target, **more)


def order(facts: Facts, target: Target, **more: bool) -> list[str]:
    pruning_space = anatomy_of(facts)
    way = way_of("depth", descent(target, [], **more).path(pruning_space.block_moves), pruning_space)
    sets = [set(str(one.steps[0].settings["blocks"]).split()) for one in way.structures]
    assert all(before < after for before, after in pairwise(sets))
    return [(after - before).pop() for before, after in pairwise([set(), *sets])]


def test_blocks_go_in_the_order_of_what_they_change_for_what_they_save(facts: Facts) -> None:
    # 0.3 changes little, and saves still less
    assert order(facts, Target(0.2, None), to_the_end=True) == ["0.1", "0.2", "0.4", "0.3"]


def test_out_of_time_what_is_known_decides_and_nothing_more_is_measured(facts: Facts) -> None:
    asked: list[Cut] = []
    made = replace(descent(Target(0.2, None), asked, to_the_end=True), out_of_time=lambda: len(asked) >= 5)
    path = made.path(anatomy_of(facts).block_moves)
    assert len(asked) == 5
    # what the first look at each had shown
    assert [one.cut.blocks[-1] for one in path] == order(facts, Target(0.2, None), to_the_end=True)


def test_out_of_time_from_the_start_what_saves_most_goes_first(facts: Facts) -> None:
    asked: list[Cut] = []
    made = replace(descent(Target(0.2, None), asked, to_the_end=True), out_of_time=lambda: True)
    savings = [SAVES[one.cut.blocks[-1]] for one in made.path(anatomy_of(facts).block_moves)]
    assert not asked
    assert savings == sorted(savings, reverse=True)


@pytest.mark.parametrize(
    ("latency", "size", "missed"),
    [
        (0.5, 0.2, []),
        (0.51, 0.2, []),
        (0.52, 0.2, ["latency 0.52x where 0.5x is asked"]),
        (0.5, 0.201, ["size 0.201x where 0.2x is asked"]),
        (1.0, 1.0, ["latency 1x where 0.5x is asked", "size 1x where 0.2x is asked"]),
    ],
)
def test_what_misses_its_limit_is_said_and_latency_is_given_a_little(
    latency: float, size: float, missed: list[str]
) -> None:
    assert Target(0.5, 0.2).missed(latency, size) == missed


def test_the_smallest_structure_lacks_four_fifths_of_the_blocks_and_three_quarters_of_every_group(facts: Facts) -> None:
    pruning_space = PruningSpace(facts, block_kinds(facts, NAMES), {}, {}, 4, ("1", "0.0.body", "0.4.body"))
    cut, (blocks, channels) = pruning_space.smallest()
    gone = str(blocks.settings["blocks"]).split()
    assert len(gone) == 4
    assert sorted(cut.blocks) == sorted(gone)
    left = [name for name in pruning_space.all_groups if name.removesuffix(".body") not in gone]
    assert channels.settings["groups"] == " ".join(left)
    assert channels.settings["ratio"] == 0.75


def test_a_group_whose_first_layer_went_with_its_block_is_named_by_its_next(facts: Facts) -> None:
    shares: Mapping[tuple[str, float], Mapping[str, tuple[float, float]]] = {("stream", 0.5): {"1": (0.5, 0.5)}}
    members = {"0.0.body": ("0.0.body", "0.2.body"), "0.1.body": ("0.1.body",)}
    pruning_space = PruningSpace(
        facts, block_kinds(facts, NAMES), {"stream": tuple(members)}, shares, 4, members=members
    )
    blocks, channels = pruning_space.steps(Cut(("0.0", "0.1"), (("stream", 0.5),)))
    assert blocks.settings["blocks"] == "0.0 0.1"
    # and one that went as a whole is not named
    assert channels.settings["groups"] == "0.2.body"


def test_where_nothing_can_go_the_smallest_structure_has_no_steps(facts: Facts) -> None:
    assert PruningSpace(facts, {}, {}, {}, 4).smallest() == (Cut(), ())


def test_the_smallest_cut_has_the_last_level_of_every_kind_that_is_left(facts: Facts) -> None:
    shares = {(kind, level): {"1": (0.5, 0.5)} for level in (0.25, 0.5) for kind in ("inside", "last")}
    groups = {"inside": ("0.0.body",), "last": ("1",)}
    pruning_space = PruningSpace(facts, block_kinds(facts, NAMES), groups, shares, 4)
    cut, _ = pruning_space.smallest()
    inside_is_left = "0.0" not in cut.blocks
    assert dict(cut.widths) == ({"inside": 0.5, "last": 0.5} if inside_is_left else {"last": 0.5})


def test_a_tighter_target_asks_for_less_of_what_is_asked() -> None:
    assert Target(0.4, None).tighter(0.5) == Target(0.2, None)
    assert Target(0.4, 0.2, "size").tighter(1.0) == Target(0.4, 0.2, "size")


def test_a_size_budget_alone_counts_size(facts: Facts) -> None:
    assert order(facts, Target(None, 0.1), to_the_end=True) == ["0.1", "0.3", "0.2", "0.4"]


def test_the_way_ends_a_little_beyond_the_budgets(facts: Facts) -> None:
    assert order(facts, Target(0.41, None)) == ["0.1", "0.2"]


def test_what_was_worse_than_the_best_is_not_measured_again_before_its_turn(facts: Facts) -> None:
    asked: list[Cut] = []
    descent(Target(0.2, None), asked, to_the_end=True).path(anatomy_of(facts).block_moves)
    # 5 at first, then one for each of the three others that go
    assert len(asked) == 8


def test_predictions_and_divergence_are_those_of_all_gone_so_far(facts: Facts) -> None:
    path = descent(Target(0.2, None), [], to_the_end=True).path(anatomy_of(facts).block_moves)
    first, second, *_ = path
    assert (first.divergence, second.divergence) == (0.1, pytest.approx(1.1))
    assert (first.latency, second.latency) == (0.4, pytest.approx(0.3))


def test_the_first_below_the_budgets_is_expected_to_fit_else_the_last(facts: Facts) -> None:
    made = descent(Target(0.35, None), [], to_the_end=True)
    path = made.path(anatomy_of(facts).block_moves)
    assert made.expected(path) == path[1]
    assert descent(Target(0.01, None), []).expected(path) == path[-1]
    assert made.expected([]) is None


@pytest.mark.parametrize(
    ("metric", "value", "limit", "expected"),
    [
        ("latency_ms", 2.0, 1.0, Target(0.5, None)),
        ("throughput_per_s", 100.0, 400.0, Target(0.25, None)),
        ("size_mb", 10.0, 2.0, Target(None, 0.2)),
        ("max_accuracy_drop_pp", 0.0, 1.0, Target(None, None)),
    ],
)
def test_the_target_is_a_share_of_the_baseline(metric: str, value: float, limit: float, expected: Target) -> None:
    finding = Finding(Budget(metric, limit), Standing.EXCEEDED, value)
    assert target_of(Verdict((finding,))) == expected


def test_layers_of_blocks_that_went_and_channels_that_were_cut_do_not_count(facts: Facts) -> None:
    shares: Mapping[tuple[str, float], Mapping[str, tuple[float, float]]] = {
        ("head", 0.5): {"1": (0.5, 0.5)},
        ("inner", 0.25): {"0.0.body": (0.75, 0.75)},
    }
    pruning_space = PruningSpace(facts, block_kinds(facts, NAMES), {"head": ("1",), "inner": ("0.0.body",)}, shares, 4)
    cut = Cut(("0.1",), (("head", 0.5), ("inner", 0.25)))
    left = {layer.name: layer.macs for layer in pruning_space.layers(cut)}
    assert left == {"0.0.body": 48, "0.2.body": 64, "0.3.body": 64, "0.4.body": 64, "1": 8}
    steps = pruning_space.steps(cut)
    assert [step.technique for step in steps] == ["block_dropping", "channel_pruning", "channel_pruning"]
    assert steps[1].settings["groups"] == "1"
    # a group inside a block that went is no longer there
    assert len(pruning_space.steps(cut.without("0.0"))) == 2


def test_samples_tell_each_kind_of_block_and_of_channels_from_the_others(facts: Facts) -> None:
    shares: Mapping[tuple[str, float], Mapping[str, tuple[float, float]]] = {("head", 0.5): {"1": (0.5, 0.5)}}
    pruning_space = PruningSpace(facts, block_kinds(facts, NAMES), {"head": ("1",)}, shares, 1)
    samples = list(pruning_space.samples())
    assert samples == [Cut(("0.0", "0.1", "0.2")), Cut(widths=(("head", 0.5),))]
