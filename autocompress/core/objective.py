"""Objectives: what "cheapest" means when several plans keep the budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from autocompress.core.plan import Effort


@dataclass(frozen=True)
class PlanCost:
    """The costs of a plan; infinite (minus infinite for the score) where they were not measured."""

    effort: Effort
    latency_ms: float
    size_mb: float
    score: float


@dataclass(frozen=True)
class Objective:
    """Defines the order of plans that keep the budgets.

    Args:
        name: as in profiles.
        order: turns a plan's cost into numbers that are compared one after the other; lower is better.
        needs: readings without which plans cannot be ordered.
        known_unmeasured: True when the first number of `order` is known before anything that `needs` names is measured.
        first_answer_ends: True when the first plan that keeps the budgets is the answer, since none is cheaper.
        shrinks: what structures beyond the budgets should reduce further; None where they are not wanted.
        wants_speed: True when a faster plan is better even where no budget asks for speed.
    """

    name: str
    order: Callable[[PlanCost], tuple[float, ...]]
    needs: frozenset[str] = frozenset()
    known_unmeasured: bool = False
    first_answer_ends: bool = False
    shrinks: Literal["latency", "size"] | None = None
    wants_speed: bool = False

    def __str__(self) -> str:
        return self.name


def _by_effort(cost: PlanCost) -> tuple[float, ...]:
    return (float(cost.effort), cost.latency_ms, cost.size_mb)


def _by_latency(cost: PlanCost) -> tuple[float, ...]:
    return (cost.latency_ms, cost.size_mb)


def _by_size(cost: PlanCost) -> tuple[float, ...]:
    return (cost.size_mb, cost.latency_ms)


def _by_score(cost: PlanCost) -> tuple[float, ...]:
    return (-cost.score, cost.latency_ms, cost.size_mb)


LATENCY = frozenset({"latency_ms"})
EFFORT = Objective("effort", _by_effort, LATENCY, known_unmeasured=True, first_answer_ends=True)
OBJECTIVES: Mapping[str, Objective] = {
    one.name: one
    for one in (
        EFFORT,
        Objective("latency", _by_latency, LATENCY, shrinks="latency", wants_speed=True),
        Objective("size", _by_size, known_unmeasured=True, shrinks="size"),
        Objective("accuracy", _by_score, frozenset({"score"})),
        # the price of an hour is the same for all plans on one device
        Objective("serving_cost", _by_latency, LATENCY, shrinks="latency", wants_speed=True),
    )
}
