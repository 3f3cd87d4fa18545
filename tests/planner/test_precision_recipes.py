"""The ladder for a quantization that loses accuracy: its order, its settings, and when it is there."""

from __future__ import annotations

from functools import cache

import pytest

from autocompress.analysis.inspection import inspect_module
from autocompress.core.facts import Facts
from autocompress.core.plan import Effort, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import SearchSpace
from autocompress.core.sensitivity import LayerSensitivity, Mixed, Sensitivity
from autocompress.core.task import Task
from autocompress.core.technique import Technique
from autocompress.core.verdict import Verdict
from autocompress.planner.rules import Situation
from autocompress.planner.tree import build_search_space
from autocompress.techniques import Int8Dynamic, Int8Static
from autocompress.testing.fakes import Scripted, Variant
from autocompress.testing.networks import labelled, labelled_source, small_model

SETTINGS = {
    "activation": "uint8",
    "weight": "int8",
    "per_channel": True,
    "calibration": "minmax",
    "samples": 256,
    "reduce_range": False,
}
LAYERS = tuple(LayerSensitivity(f"layers.{n}", "Conv", 0.1 * n, 0.1, 0.2, 100, 400) for n in range(8))
TASK = Task(test=labelled_source("cnn", 40), train=labelled_source("cnn", 40))


def found(*divergences: float) -> Sensitivity:
    """A sensitivity of divergence 1, with so much of it left by the first layer, the first two and so on."""
    mixed = tuple(
        Mixed(tuple(one.name for one in LAYERS[: n + 1]), divergence, 0.4 + 0.1 * n, 0.3)
        for n, divergence in enumerate(divergences)
    )
    return Sensitivity("int8_static", SETTINGS, 1.0, 64, LAYERS, mixed)


def serving(name: str, stage: Stage, effort: Effort, *, quantization: str = "static") -> Scripted:
    technique = Scripted(name, {"only": Variant()}, effort)
    technique.stage = stage  # type: ignore[misc]  # fixed for each class
    technique.serves = frozenset({quantization})  # type: ignore[misc]  # likewise
    return technique


SHELF: tuple[Technique, ...] = (
    Int8Dynamic(),
    Int8Static(),
    serving("trained", Stage.TUNING, Effort.TRAINING),
    serving("rounded", Stage.TUNING, Effort.CALIBRATION),
    serving("prepared", Stage.PREPARATION, Effort.CALIBRATION),
    serving("other", Stage.TUNING, Effort.CALIBRATION, quantization="dynamic"),
)


@cache
def facts() -> Facts:
    return inspect_module(small_model("cnn"), Example(labelled("cnn", 2)[0]))


def space(sensitivity: Sensitivity | None) -> SearchSpace:
    situation = Situation(
        facts(), Probes(sensitivities=(sensitivity,) if sensitivity else ()), Profile("own"), TASK, Verdict()
    )
    return build_search_space(situation, SHELF, "onnx")


def ladder(made: SearchSpace) -> list[str]:
    return [recipe.name for recipe in made.recipes if recipe.reason.rule == "sensitivity"]


def test_what_keeps_accuracy_comes_in_the_order_of_its_effort() -> None:
    assert ladder(space(found(0.4, 0.1))) == [
        "prepared + int8_static",
        "int8_static, layers in float",
        "int8_static + rounded",
        "int8_static + trained",
    ]


def test_there_is_no_ladder_before_a_loss_was_measured() -> None:
    made = space(None)
    assert ladder(made) == []
    assert [recipe.techniques for recipe in made.recipes] == [["int8_dynamic"], ["int8_static"]]


def test_layers_go_back_to_float_in_sets_that_grow_and_nothing_else_changes() -> None:
    mixed = next(one for one in space(found(0.4, 0.1)).recipes if one.name == "int8_static, layers in float")
    settings = [dict(plan.finish[0].settings) for plan in mixed.plans()]
    assert settings == [{**SETTINGS, "in_float": "layers.0"}, {**SETTINGS, "in_float": "layers.0 layers.1"}]
    assert (mixed.predicted_latency, mixed.predicted_size) == (0.4, 0.3)


def test_no_layers_go_back_where_no_set_of_them_is_worth_it() -> None:
    assert "int8_static, layers in float" not in ladder(space(found()))


def test_each_plan_belongs_to_the_recipe_that_proposes_it() -> None:
    made = space(found(0.4, 0.1))
    for recipe in made.recipes:
        for plan in recipe.plans():
            assert made.recipe_of(plan) is recipe


@pytest.mark.parametrize(
    ("sensitivity", "answer", "fact"),
    [
        (None, "not seen so far", "no loss was measured"),
        (found(0.4, 0.1), "in some layers", "half of the divergence comes from 1 of 8 layers: layers.0"),
        (found(0.9, 0.6, 0.4), "all over the network", "no few of the 8 layers hold half of the divergence"),
    ],
)
def test_the_tree_asks_where_int8_loses_accuracy(sensitivity: Sensitivity | None, answer: str, fact: str) -> None:
    decision = next(one for one in space(sensitivity).decisions if one.rule == "sensitivity")
    assert (decision.answer, decision.found) == (answer, fact)


def test_the_sensitivity_survives_the_record() -> None:
    probes = Probes(sensitivities=(found(0.4),))
    assert Probes.from_json(probes.to_json()) == probes
