from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.budget import Budget
from autocompress.core.moves import Moves
from autocompress.core.plan import Stage, Step
from autocompress.core.probes import Structure
from autocompress.core.runtime import Example
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.planner.target import Target, target_of
from autocompress.pruning.block_moves import BlockMoves
from autocompress.structure.path import GreedySearch, Options, PathPoint, options_of, path_of
from autocompress.structure.space import PruningSpace
from autocompress.testing.structure_technique_suite import network_of

NAMES = tuple(f"0.{i}" for i in range(5))
# what leaving a block out changes and saves
HARM = dict(zip(NAMES, (5.0, 0.1, 1.0, 0.7, 3.0), strict=True))
SAVES = dict(zip(NAMES, (0.1, 0.1, 0.1, 0.02, 0.1), strict=True))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


@pytest.fixture(scope="module")
def space() -> PruningSpace:
    module = nn.Sequential(nn.Sequential(*(Block() for _ in NAMES)), nn.Linear(8, 2))
    network = network_of(module.eval(), Example((np.zeros((1, 8), np.float32),)))
    return PruningSpace(network, {"dropping": BlockMoves("dropping", network)})


@pytest.fixture(scope="module")
def options(space: PruningSpace) -> Options:
    return options_of(space, ["dropping"])


def greedy(target: Target, asked: list[Moves], **more: bool) -> GreedySearch:
    def predict(moves: Moves) -> tuple[float, float]:
        return 0.5 - sum(SAVES[move.target] for move in moves), 0.3 - 0.03 * len(moves)

    def diverges(moves: Moves) -> float:
        asked.append(moves)
        return sum(HARM[move.target] for move in moves)

    return GreedySearch(predict, diverges, target, **more)


def added(path: Sequence[PathPoint]) -> list[str]:
    """The block that goes with each point, which leaves out all that the one before it does."""
    sets = [{move.target for move in one.moves} for one in path]
    assert all(before < after for before, after in pairwise(sets))
    return [(after - before).pop() for before, after in pairwise([set(), *sets])]


def order(options: Options, target: Target, **more: bool) -> list[str]:
    return added(greedy(target, [], **more).path(options))


def test_blocks_go_in_the_order_of_what_they_change_for_what_they_save(options: Options) -> None:
    # 0.3 changes little, and saves still less
    assert order(options, Target(0.2, None), to_the_end=True) == ["0.1", "0.2", "0.4", "0.3"]


def test_a_path_is_nested_structures_of_plans_with_what_is_predicted_of_each(
    space: PruningSpace, options: Options
) -> None:
    points = greedy(Target(0.41, None), []).path(options)
    path = path_of("depth", points, space)
    assert path.name == "depth"
    assert path.structures == tuple(
        Structure((Step("dropping", Stage.STRUCTURE, {"blocks": blocks}),), divergence, latency, size)
        for blocks, divergence, latency, size in (
            ("0.1", 0.1, pytest.approx(0.4), pytest.approx(0.27)),
            ("0.1 0.2", pytest.approx(1.1), pytest.approx(0.3), pytest.approx(0.24)),
        )
    )


def test_every_move_is_told_of_with_what_is_predicted(options: Options) -> None:
    told: list[str] = []
    replace(greedy(Target(0.41, None), []), tell=told.append).path(options)
    assert [sentence.split(",")[0] for sentence in told] == ["1 cuts ordered", "2 cuts ordered"]
    assert "0.40x latency and 0.27x size predicted" in told[0]


def test_out_of_time_what_is_known_decides_and_nothing_more_is_measured(options: Options) -> None:
    asked: list[Moves] = []
    made = replace(greedy(Target(0.2, None), asked, to_the_end=True), out_of_time=lambda: len(asked) >= 5)
    path = made.path(options)
    assert len(asked) == 5
    # what the first look at each had shown
    assert added(path) == order(options, Target(0.2, None), to_the_end=True)


def test_out_of_time_from_the_start_what_saves_most_goes_first(options: Options) -> None:
    asked: list[Moves] = []
    made = replace(greedy(Target(0.2, None), asked, to_the_end=True), out_of_time=lambda: True)
    savings = [SAVES[block] for block in added(made.path(options))]
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


def test_a_tighter_target_asks_for_less_of_what_is_asked() -> None:
    assert Target(0.4, None).tighter(0.5) == Target(0.2, None)
    assert Target(0.4, 0.2, "size").tighter(1.0) == Target(0.4, 0.2, "size")


def test_a_size_budget_alone_counts_size(options: Options) -> None:
    assert order(options, Target(None, 0.1), to_the_end=True) == ["0.1", "0.3", "0.2", "0.4"]


def test_the_path_ends_a_little_beyond_the_budgets(options: Options) -> None:
    assert order(options, Target(0.41, None)) == ["0.1", "0.2"]


def test_what_was_worse_than_the_best_is_not_measured_again_before_its_turn(options: Options) -> None:
    asked: list[Moves] = []
    greedy(Target(0.2, None), asked, to_the_end=True).path(options)
    # 5 at first, then one for each of the three others that go
    assert len(asked) == 8


def test_predictions_and_divergence_are_those_of_all_gone_so_far(options: Options) -> None:
    path = greedy(Target(0.2, None), [], to_the_end=True).path(options)
    first, second, *_ = path
    assert (first.divergence, second.divergence) == (0.1, pytest.approx(1.1))
    assert (first.latency, second.latency) == (0.4, pytest.approx(0.3))


def test_the_first_below_the_budgets_is_expected_to_fit_else_the_last(options: Options) -> None:
    made = greedy(Target(0.35, None), [], to_the_end=True)
    path = made.path(options)
    assert made.expected(path) == path[1]
    assert greedy(Target(0.01, None), []).expected(path) == path[-1]
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
