from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest

from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.prediction import BaselineFigures
from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.facts import Facts, Family, Kind
from autocompress.core.objective import OBJECTIVES
from autocompress.core.plan import Effort, Setting, Stage, Step
from autocompress.core.probes import Parts, Probe, Probes, PruningPath, Structure
from autocompress.core.profile import DeviceProfile, Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import NOT_AVAILABLE, Choice, Decision, Reason, SearchSpace, SettingSpace
from autocompress.core.sensitivity import LayerSensitivity, Mixed, Sensitivity
from autocompress.core.source import ArraySource
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, Context, Technique
from autocompress.core.training_probe import Bracket, QuantizationLoss, TrainingProbe
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.errors import PlanError
from autocompress.planner.questions import RULES, lacks_hardware
from autocompress.planner.rules import Situation
from autocompress.planner.tree import build_search_space, finishing_chains, require_reachable
from autocompress.techniques import (
    TECHNIQUES,
    BlockDropping,
    ChannelPruning,
    Distillation,
    Equalization,
    Float16,
    Int8Dynamic,
    Int8Static,
    Palettes,
    PaletteTraining,
    QuantizationAwareTraining,
)
from autocompress.testing.networks import labelled, labelled_source, small_model

ONNX = frozenset({"onnx"})
DROP = Budget("max_accuracy_drop_pp", 1.0)
LOSS = Budget("max_score_drop", 0.1)


def share(metric: str, limit: float) -> Budget:
    return Budget(metric, limit, relative=True)


TIME, SIZE = share("latency_ms", 0.5), share("size_mb", 0.5)


class Training(ArtifactTechnique):
    """A technique that trains, as later versions will have."""

    name: ClassVar[str] = "retrained"
    summary: ClassVar[str] = "trains"
    stage: ClassVar[Stage] = Stage.PRECISION
    effort: ClassVar[Effort] = Effort.TRAINING
    formats: ClassVar[frozenset[str]] = ONNX
    choices: ClassVar[tuple[Choice, ...]] = ()
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        return SettingSpace()

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        return None

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        return "retrained"

    def covers(self, facts: Facts) -> frozenset[Kind]:
        return frozenset(Kind)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        return artifact


class Packing(Training):
    """Makes the files of others smaller, in one of two ways."""

    name: ClassVar[str] = "packed"
    summary: ClassVar[str] = "weights stand in a table"
    stage: ClassVar[Stage] = Stage.PACKING
    effort: ClassVar[Effort] = Effort.NONE
    choices: ClassVar[tuple[Choice, ...]] = (Choice("codes", (256, 16)),)

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        return SettingSpace(self.choices)


class OnSparseUnits(Training):
    """A technique that pays on units which hardly any device has."""

    name: ClassVar[str] = "n_m_sparsity"
    effort: ClassVar[Effort] = Effort.NONE
    hardware: ClassVar[frozenset[str]] = frozenset({"sparse_2_4", "sparse_1_4"})


class OtherFormat(Training):
    """The same for files that this runtime does not make."""

    name: ClassVar[str] = "other_format"
    effort: ClassVar[Effort] = Effort.NONE
    formats: ClassVar[frozenset[str]] = frozenset({"tflite"})


@cache
def facts_of(name: str) -> Facts:
    return inspect_module(small_model(name), Example(labelled(name, 2)[0]))


def probes_of(dynamic: Sequence[float], static: Sequence[float], size: float = 0.3) -> Probes:
    """Probes of the techniques' own settings, in the order in which they list them."""
    found: list[Probe] = []
    for technique, ratios in ((Int8Dynamic, dynamic), (Int8Static, static)):
        found += [
            Probe(technique.name, settings, ratio, ratio * 0.9, ratio * 1.1, size)
            for settings, ratio in zip(technique.probed, ratios, strict=False)
        ]
    return Probes(tuple(found), ("block.0",), int8_dot_product=True)


def many(items: int) -> ArraySource:
    return ArraySource((np.zeros((items, 1), dtype=np.float32),), np.zeros(items, dtype=np.int64))


def judged(*findings: tuple[Budget, Standing, float | None]) -> Verdict:
    return Verdict(tuple(Finding(budget, standing, value) for budget, standing, value in findings))


TASK = Task(test=many(3000), train=labelled_source("cnn", 40))
FAST = probes_of([0.9, 0.8], [0.4, 0.5, 0.6, 0.7])
SLOW = probes_of([4.0, 3.0], [1.2, 1.5, 1.3, 1.4])


def situation(**changes: Any) -> Situation:
    """A CNN that has to become smaller and faster, with all data, where int8 pays."""
    budgets = changes.pop("budgets", (SIZE, TIME, DROP))
    objective = OBJECTIVES[changes.pop("objective", "effort")]
    device = DeviceProfile(device_class=changes.pop("place", "server"), features=changes.pop("features", ()))
    profile = Profile("here", device, budgets=budgets, objective=objective)
    baseline = judged((SIZE, Standing.EXCEEDED, 1.0), (TIME, Standing.EXCEEDED, 1.0), (DROP, Standing.MET, 0.0))
    usual = Situation(facts_of("cnn"), FAST, profile, TASK, baseline)
    return replace(usual, **changes)


def shelf() -> list[Technique]:
    """The quantizations to int8."""
    return [Int8Dynamic(), Int8Static()]


def with_structure() -> list[Technique]:
    """The same and what changes the network."""
    return [technique() for technique in TECHNIQUES if technique not in (Float16, Palettes, PaletteTraining)]


def space_of(found: Situation, techniques: Sequence[Technique] | None = None) -> SearchSpace:
    return build_search_space(found, techniques if techniques is not None else shelf(), "onnx")


def answer_of(search_space: SearchSpace, rule: str) -> Decision:
    (answer,) = (answer for answer in search_space.decisions if answer.rule == rule)
    return answer


def names(search_space: SearchSpace) -> list[str]:
    return [recipe.name for recipe in search_space.recipes]


def lossy(divergence: float) -> Probes:
    """Probes of int8 with a divergence of 1, of which one of four layers in float leaves this share."""
    layers = tuple(LayerSensitivity(name, "Conv", 0.5, None, None, 1, 4) for name in "abcd")
    return replace(FAST, sensitivities=(Sensitivity("int8_static", {}, 1.0, 8, layers, (Mixed(("a",), divergence),)),))


def smallest(latency: float, size: float) -> Probes:
    return replace(FAST, smallest=Structure((), None, latency, size))


# every rule, every branch: (rule, answer, a part of what was found, the situation)
CASES: Sequence[tuple[str, str, str, Situation]] = (
    ("fits", "yes", "all size and time budgets are met", situation(baseline=judged((SIZE, Standing.MET, 0.4)))),
    ("fits", "no", "size_mb <= 0.5x: 1; latency_ms <= 0.5x: 1", situation()),
    ("fits", "no", "not every budget is measured", situation(baseline=judged((SIZE, Standing.UNMEASURED, None)))),
    ("fits", "no", "not every budget is measured", situation(baseline=judged((DROP, Standing.MET, 0.0)))),
    ("sensitivity", "not seen so far", "no loss was measured", situation()),
    ("sensitivity", "in some layers", "comes from 1 of 4 layers: a", situation(probes=lossy(0.4))),
    ("sensitivity", "all over the network", "no few of the 4 layers", situation(probes=lossy(0.6))),
    ("file", "no", "a PyTorch module", situation()),
    ("file", "yes", "an ONNX file", situation(facts=replace(facts_of("cnn"), is_file=True))),
    ("place", "on a server", "server", situation()),
    ("place", "on a phone or a board", "mobile", situation(place="mobile")),
    ("place", "on a phone or a board", "edge", situation(place="edge")),
    ("place", "on a desktop or one's own machines", "desktop", situation(place="desktop")),
    ("family", "a convolutional network", "cnn (work: 100% convolution", situation()),
    ("family", "a transformer", "transformer (work:", situation(facts=facts_of("transformer"))),
    ("family", "a recurrent network", "rnn (work:", situation(facts=facts_of("lstm"))),
    ("family", "a multilayer perceptron", "mlp (work:", situation(facts=facts_of("mlp"))),
    ("family", "a mixture", "mixed", situation(facts=replace(facts_of("cnn"), family=Family.MIXED))),
    ("hardware", "sparse matrices", "int8_dot_product, sparse_2_4", situation(features=("sparse_2_4",))),
    ("hardware", "int8", "int8_dot_product", situation()),
    ("hardware", "int8", "int8_dot_product", situation(features=("int8_dot_product",), probes=Probes())),
    ("hardware", "less work", "no unit", situation(probes=Probes())),
    ("tolerance", "nothing is said", "no limit in points", situation(budgets=(SIZE,))),
    ("tolerance", "less than 2 points", "1 pp", situation()),
    ("tolerance", "2 to 5 points", "2 pp", situation(budgets=(SIZE, Budget("max_accuracy_drop_pp", 2.0)))),
    ("tolerance", "more than 5 points", "5.1 pp", situation(budgets=(SIZE, Budget("max_accuracy_drop_pp", 5.1)))),
    ("asked", "up to 4 times", "2 times", situation()),
    ("asked", "4 to 16 times", "5 times", situation(baseline=judged((share("size_mb", 0.2), Standing.EXCEEDED, 1.0)))),
    ("asked", "more than 16 times", "20 times",
     situation(baseline=judged((TIME, Standing.EXCEEDED, 1.0), (share("size_mb", 0.05), Standing.EXCEEDED, 1.0)))),
    ("what", "size and time", "size_mb, latency_ms", situation()),
    ("what", "size alone", "size_mb", situation(budgets=(SIZE, DROP))),
    ("what", "time alone", "latency_ms", situation(budgets=(TIME,))),
    ("what", "nothing", "neither", situation(budgets=(DROP,))),
    ("calibration", "yes", "no data", situation(task=None)),
    ("calibration", "yes", "no data", situation(task=Task())),
    ("calibration", "inputs can be made", "no data", situation(task=None, no_inputs="")),
    ("calibration", "no", "40 items (train)", situation()),
    ("calibration", "no", "items (test, validation third)", situation(task=Task(test=many(30)))),
    ("training", "yes", "no training data", situation(task=Task(test=many(30)))),
    ("training", "yes", "no training data", situation(task=None)),
    ("training", "no", "40 training items", situation()),
    ("unmeasured", "yes", "max_accuracy_drop_pp", situation(task=None)),
    ("unmeasured", "yes", "min_accuracy", situation(task=Task(val=many(30)), budgets=(Budget("min_accuracy", 90.0),))),
    ("unmeasured", "no", "max_accuracy_drop_pp", situation()),
    ("unmeasured", "no", "no accuracy budget", situation(task=None, budgets=(SIZE,))),
    ("resolution", "yes", "holdout items can show a drop of", situation(task=Task(test=many(300)))),
    ("resolution", "yes", "1001 holdout items can show a drop of 0.43 pp",
     situation(task=Task(test=many(1500), score="token_accuracy"), budgets=(Budget("max_accuracy_drop_pp", 0.4),))),
    ("resolution", "yes", "1001 holdout items can show a drop of 0.17 score",
     situation(task=Task(test=many(1500), score="negative_error", score_bounds=(-40, 0)), budgets=(LOSS,))),
    ("resolution", "no", "no drop is the smallest",
     situation(task=Task(test=many(1500), score="negative_error"), budgets=(LOSS,))),
    ("resolution", "no", "no drop is the smallest", situation(task=Task(test=many(300), score="macro_f1"))),
    ("resolution", "no", "no data", situation(task=None)),
    ("resolution", "no", "holdout items can show a drop of", situation()),
    ("resolution", "no", "no limit on the accuracy drop", situation(task=Task(test=many(3)), budgets=(SIZE,))),
    ("beyond", "yes", "<= 0.3x where quantization reached 0.40x", situation(budgets=(share("latency_ms", 0.3),))),
    ("beyond", "yes", "<= 0.2x where quantization reached 0.30x", situation(budgets=(share("size_mb", 0.2),))),
    ("beyond", "no", "within reach", situation()),
    ("beyond", "no", "within reach", situation(budgets=(Budget("latency_ms", 0.001),))),
    ("reachable", "no", "was not measured", situation()),
    ("reachable", "no", "the smallest structure has latency 0.3x, size 0.2x", situation(probes=smallest(0.3, 0.2))),
    ("reachable", "yes", "has latency 0.6x where 0.5x is asked", situation(probes=smallest(0.6, 0.2))),
    ("reachable", "yes", "has size 0.51x where 0.5x is asked", situation(probes=smallest(0.3, 0.51))),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "answered", "found", "given"), CASES)
def test_a_rule_is_answered_with_what_was_found_and_what_follows(
    rule: str, answered: str, found: str, given: Situation
) -> None:
    answer = answer_of(space_of(given), rule)
    declared = next(one for one in RULES if one.name == rule)
    sentences = {branch.answer: branch.sentence for branch in declared.branches}
    assert answer.answer == answered
    assert found in answer.found
    assert answer.question == declared.question
    assert answer.sentence == sentences.pop(answered)
    assert answer.others == sentences


def test_every_branch_of_every_rule_is_tested() -> None:
    assert {(rule, answer) for rule, answer, _, _ in CASES} == {(r.name, b.answer) for r in RULES for b in r.branches}


def test_what_trains_is_refused_where_the_budgets_are_out_of_reach() -> None:
    search_space = space_of(situation(probes=smallest(0.6, 0.2)), [Training()])
    assert search_space.out_of_reach
    assert search_space.refusals["retrained"].rule == "reachable"
    assert not space_of(situation(probes=smallest(0.3, 0.2)), [Training()]).out_of_reach


def test_every_rule_is_answered_in_order() -> None:
    assert [answer.rule for answer in space_of(situation()).decisions] == [rule.name for rule in RULES]


# what the answers lead to


def test_a_model_that_fits_already_ends_with_an_empty_search_space_and_a_reason_for_everything() -> None:
    search_space = space_of(situation(baseline=judged((SIZE, Standing.MET, 0.4), (TIME, Standing.MET, 0.4))))
    assert search_space.recipes == ()
    assert [answer.rule for answer in search_space.decisions] == ["fits"]
    assert set(search_space.refusals) == {"int8_dynamic", "int8_static"}
    for reason in search_space.refusals.values():
        assert reason.rule == "fits"
        assert "nothing to do" in reason.sentence
        assert reason.fact == "all size and time budgets are met"


def test_a_model_that_is_not_measured_as_fitting_is_not_taken_to_fit() -> None:
    for standing in (Standing.UNDECIDED, Standing.UNMEASURED, Standing.EXCEEDED):
        baseline = judged((SIZE, Standing.MET, 0.4), (TIME, standing, None))
        assert names(space_of(situation(baseline=baseline)))


def test_without_data_static_int8_is_refused_for_that_reason() -> None:
    search_space = space_of(situation(task=None))
    assert names(search_space) == ["int8_dynamic"]
    assert search_space.refusals["int8_static"] == Reason(
        "needs calibration data, and there are none.", "calibration", "no data"
    )


def test_without_data_ranges_come_from_made_inputs_where_these_can_be_made() -> None:
    search_space = space_of(situation(task=None, no_inputs=""), [Training(), *with_structure()])
    assert set(names(search_space)) == {"int8_dynamic", "int8_static"}
    assert answer_of(search_space, "calibration").answer == "inputs can be made"
    sentence = "ranges come from inputs made from batch-norm statistics; what needs more than ranges needs data."
    assert f"no data: {sentence}" in search_space.warnings
    for name in ("block_dropping", "channel_pruning"):
        assert search_space.refusals[name] == Reason(sentence, "calibration", "no data")
    reason = "inputs cannot be made, since no layer keeps statistics"
    refused = space_of(situation(task=None, no_inputs=reason)).refusals["int8_static"]
    assert refused == Reason("needs calibration data, and there are none.", "calibration", f"no data, and {reason}")


def test_a_file_is_neither_cut_nor_trained() -> None:
    search_space = space_of(situation(facts=replace(facts_of("cnn"), is_file=True)), with_structure())
    assert set(names(search_space)) == {"int8_dynamic", "int8_static"}
    for name in ("block_dropping", "channel_pruning", "distillation"):
        assert search_space.refusals[name].rule == "file"
        assert "needs the PyTorch module" in search_space.refusals[name].sentence


def test_with_data_both_techniques_make_a_recipe() -> None:
    assert set(names(space_of(situation()))) == {"int8_dynamic", "int8_static"}


def test_without_training_data_what_trains_is_refused_for_that_reason() -> None:
    techniques = [Training(), *shelf()]
    search_space = space_of(situation(task=Task(test=many(3000))), techniques)
    assert search_space.refusals["retrained"] == Reason(
        "needs training data, and there are none.", "training", "no training data"
    )
    assert "retrained" in names(space_of(situation(), techniques))


def test_a_technique_for_other_files_is_refused_for_that_reason() -> None:
    search_space = space_of(situation(), [OtherFormat(), *shelf()])
    assert search_space.refusals["other_format"] == Reason("cannot change onnx files.", "format", "onnxruntime")
    assert "other_format" not in names(search_space)


def test_a_technique_that_covers_no_layer_is_refused_with_the_share_of_the_work() -> None:
    reason = space_of(situation(facts=facts_of("lstm"), probes=Probes())).refusals["int8_static"]
    assert reason.rule == "quantizable"
    assert "does its work elsewhere" in reason.sentence
    assert reason.fact == "100% of the work is recurrent"


@pytest.mark.parametrize(
    "asks",
    [
        {"budgets": (TIME,)},
        {"budgets": (Budget("throughput_per_s", 5.0),)},
        {"budgets": (SIZE,), "objective": "latency"},
        {"budgets": (SIZE,), "objective": "serving_cost"},
    ],
)
def test_where_time_matters_what_probed_slower_than_float_is_refused_with_the_figure(asks: dict[str, Any]) -> None:
    search_space = space_of(situation(probes=SLOW, **asks))
    assert search_space.recipes == ()
    dynamic, static = search_space.refusals["int8_dynamic"], search_space.refusals["int8_static"]
    assert (dynamic.rule, static.rule) == ("probe", "probe")
    assert "3.0x slower than float" in dynamic.sentence
    assert dynamic.fact == "3.00x the float latency (2.70 to 3.30), best of 2 settings"
    assert "1.2x slower than float" in static.sentence
    assert static.fact == "1.20x the float latency (1.08 to 1.32), best of 4 settings"


@pytest.mark.parametrize("objective", ["effort", "size", "accuracy"])
def test_where_time_does_not_matter_slow_probes_refuse_nothing(objective: str) -> None:
    search_space = space_of(situation(probes=SLOW, budgets=(SIZE, DROP), objective=objective))
    assert names(search_space) == ["int8_dynamic", "int8_static"]


def test_where_time_matters_only_the_settings_that_pay_are_tried_fastest_first() -> None:
    search_space = space_of(situation(probes=probes_of([0.9, 1.1], [0.9, 1.3, 0.5, 1.01])))
    tried = {recipe.name: [step.finish[0].settings for step in recipe.plans()] for recipe in search_space.recipes}
    assert {bool(settings["per_channel"]) for settings in tried["int8_dynamic"]} == {True}
    assert [settings["per_channel"] for settings in tried["int8_static"]] == [False] * 4 + [True] * 4
    assert {settings["activation"] for settings in tried["int8_static"]} == {"uint8"}


def test_where_time_does_not_matter_all_settings_that_worked_are_tried() -> None:
    search_space = space_of(situation(probes=SLOW, budgets=(SIZE,)))
    static = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static")
    assert len(list(static.plans())) == 4 * 4


def test_a_technique_whose_every_probe_failed_is_refused_with_the_failure() -> None:
    failed = Probes(
        tuple(Probe("int8_dynamic", settings, None, failure="no kernel.") for settings in Int8Dynamic.probed)
    )
    search_space = space_of(situation(probes=failed))
    assert search_space.refusals["int8_dynamic"].rule == "probe"
    assert "no kernel." in search_space.refusals["int8_dynamic"].sentence
    assert names(search_space) == ["int8_static"]


def test_a_technique_that_was_not_probed_is_tried_and_says_so() -> None:
    search_space = space_of(situation(probes=Probes()))
    for recipe in search_space.recipes:
        assert "nothing was probed" in recipe.reason.sentence
        assert (recipe.predicted_latency, recipe.predicted_size) == (None, None)


def test_a_recipe_predicts_what_its_best_probe_measured() -> None:
    search_space = space_of(situation())
    static = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static")
    assert (static.predicted_latency, static.predicted_size) == (0.4, 0.3)
    assert static.reason == Reason("0.40x the float latency on the dominant layers here.", "probe", "0.36 to 0.44")


def test_a_recipe_predicts_of_the_whole_model_what_its_first_plan_measured_there() -> None:
    first, second = (
        replace(probe, ratio=ratio, size_ratio=size, whole=True)
        for probe, ratio, size in zip(FAST.probes[2:4], (0.62, 0.61), (0.27, 0.26), strict=True)
    )
    search_space = space_of(situation(probes=replace(FAST, probes=(*FAST.probes, first, second))))
    static = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static")
    # the second is faster by less than tells them apart
    assert (static.predicted_latency, static.predicted_size) == (0.62, 0.27)
    assert static.reason.sentence == "0.62x the float latency of the model here."


def test_recipes_are_ordered_by_effort_before_speed() -> None:
    everything = [Training(), Int8Static(), Int8Dynamic()]
    for techniques in (everything, everything[::-1]):
        search_space = space_of(situation(), techniques)
        assert names(search_space) == ["int8_dynamic", "int8_static", "retrained"]
        # static is the faster one by far
        assert (search_space.recipes[1].predicted_latency or 1.0) < (search_space.recipes[0].predicted_latency or 1.0)


# structure and training


def drop(*blocks: str) -> tuple[Step, ...]:
    return (Step("block_dropping", Stage.STRUCTURE, {"blocks": " ".join(blocks)}),)


def can_drop(*blocks: str) -> dict[str, Parts]:
    return {BlockDropping.name: Parts(BlockDropping.parts, blocks)}


def with_blocks(*blocks: str, training: bool) -> Probes:
    """What was probed where these blocks can go one after the other, and a step of training takes half a second."""
    structures = tuple(Structure(drop(*blocks[: k + 1]), 0.1, 0.5 - 0.1 * k, 0.3 - 0.1 * k) for k in range(len(blocks)))
    schedule = (
        TrainingProbe(32, 0.1, "sgd", 0.5, brackets=(Bracket((drop(*blocks),), (100, 300, 900), (1, 1, 1)),))
        if training
        else None
    )
    return replace(FAST, parts=can_drop(*blocks), paths=(PruningPath("depth", structures),), training=schedule)


def test_structure_comes_after_int8_and_training_after_both_each_rung_longer_than_the_last() -> None:
    techniques = with_structure()[::-1]
    search_space = space_of(situation(probes=with_blocks("b1", "b2", training=True)), techniques)
    assert [recipe.effort for recipe in search_space.recipes] == sorted(
        recipe.effort for recipe in search_space.recipes
    )
    assert names(search_space)[:3] == ["int8_dynamic", "int8_static", "depth + int8_static"]
    dropped, *trained = search_space.recipes[2:]
    assert [(len(recipe.rounds), recipe.effort) for recipe in trained] == [(n, Effort.TRAINING) for n in (1, 2, 3)]
    # the fastest finish has one setting left
    assert [plan.rounds[0][0].settings for plan in dropped.plans()] == [{"blocks": "b1"}, {"blocks": "b1 b2"}]
    assert dropped.nested
    seconds = [recipe.predicted_seconds or 0.0 for recipe in trained]
    assert seconds[0] == 50.0
    assert seconds == sorted(set(seconds))
    for recipe in trained:
        for plan in recipe.plans():
            assert recipe.holds(plan)
            assert [step.technique for steps in plan.rounds for step in steps].count("distillation") == len(
                recipe.rounds
            )


def with_loss(probes: Probes, lost: float, missing: float, outliers: float = 1.0) -> Probes:
    """The same after the first rung was judged: what int8 costs of what is missing, in points."""
    assert probes.training is not None
    finish = space_of(situation(probes=probes), with_structure()).recipes[-1].finish[-1]
    loss = QuantizationLoss(0, 0, lost, missing, "pp")
    if loss.pays:
        found = lossy(0.4).sensitivity
        assert found is not None
        settings = next(finish.space.grid())
        loss = replace(loss, sensitivity=replace(found, settings=settings, outliers=outliers))
    training = replace(probes.training, losses=(loss,))
    return replace(probes, training=training, step_seconds={QuantizationAwareTraining.name: 0.5})


def test_where_int8_costs_most_of_what_is_missing_it_is_done_with_more_care_before_the_next_rung() -> None:
    probes = with_blocks("b1", "b2", training=True)
    assert not any(recipe.refines for recipe in space_of(situation(probes=probes), with_structure()).recipes)
    search_space = space_of(situation(probes=with_loss(probes, 1.2, 2.0)), with_structure())
    first, mixed, tuned, second, third = search_space.recipes[-5:]
    assert [len(one.rounds) for one in (first, mixed, tuned, second, third)] == [1, 1, 1, 2, 3]
    assert mixed.name == f"{first.name}, layers in float"
    assert tuned.name == f"{first.name} + quantization_aware_training"
    assert tuned.reason.fact == "quantization costs 1.2 pp, 2 are missing; 0.5 s a step here"
    # one length only, and its time is known
    (plan,) = tuned.plans()
    assert tuned.seconds_of(plan) == tuned.predicted_seconds == 0.5 * plan.finish[-1].steps_taken
    for recipe in (mixed, tuned):
        assert (recipe.promotes, recipe.effort) == (1, Effort.TRAINING)
        assert recipe.refines == next(first.plans()).finish
        assert all(search_space.recipe_of(plan) is recipe for plan in recipe.plans())
    # the unchanged network did not lose anything that was seen
    assert not any(recipe.finish[-1].technique == tuned.finish[-1].technique for recipe in search_space.recipes[:-5])
    assert QuantizationAwareTraining.name not in search_space.refusals


def test_a_structure_whose_ranges_ask_for_it_is_prepared_though_the_unchanged_network_is_not() -> None:
    probes = with_blocks("b1", "b2", training=True)
    narrow = space_of(situation(probes=with_loss(probes, 1.2, 2.0)), with_structure())
    assert Equalization.name in narrow.refusals
    wide = space_of(situation(probes=with_loss(probes, 1.2, 2.0, outliers=900.0)), with_structure())
    assert Equalization.name not in wide.refusals
    prepared = next(recipe for recipe in wide.recipes if Equalization.name in recipe.techniques)
    assert [element.technique for element in prepared.finish] == ["equalization", "int8_static"]
    assert prepared.rounds == wide.recipes[3].rounds


def test_where_structure_costs_more_the_quantized_file_is_not_trained_and_the_figures_say_why() -> None:
    probes = with_loss(with_blocks("b1", "b2", training=True), 0.4, 2.0)
    search_space = space_of(situation(probes=probes), with_structure())
    assert not any(recipe.refines for recipe in search_space.recipes)
    refusal = search_space.refusals[QuantizationAwareTraining.name]
    assert refusal.fact == "quantization costs 0.4 pp, 2 are missing"
    assert "training in float wins more" in refusal.sentence


def test_why_a_learning_rate_was_chosen_is_told_with_the_recipe_that_trains() -> None:
    probes = with_blocks("b1", "b2", training=True)
    assert probes.training is not None
    told = replace(probes, training=replace(probes.training, rate_reason="0.2 instead of the default 0.1"))
    *_, trained = space_of(situation(probes=told), with_structure()).recipes
    assert trained.reason.fact.endswith("s a step here; learning rate: 0.2 instead of the default 0.1")


def test_where_no_quantization_pays_structure_and_training_are_tried_in_float() -> None:
    probes = replace(with_blocks("b1", "b2", training=True), probes=SLOW.probes)
    search_space = space_of(situation(probes=probes), with_structure())
    assert {"int8_dynamic", "int8_static"} <= search_space.refusals.keys()
    assert names(search_space) == ["depth", *(f"structure + distillation x{number}" for number in (1, 2, 3))]
    for recipe in search_space.recipes:
        for plan in recipe.plans():
            assert plan.finish == ()
            assert recipe.holds(plan)


def test_a_bracket_of_smaller_structures_follows_all_rungs_of_the_one_before() -> None:
    probes = with_blocks("b1", "b2", training=True)
    smaller = Bracket((drop("b1", "b2", "b3"),), (100,), (1,))
    training = probes.training and replace(probes.training, brackets=(*probes.training.brackets, smaller))
    made = space_of(situation(probes=replace(probes, training=training)), with_structure())
    assert [
        (name.startswith("smaller"), len(recipe.rounds)) for name, recipe in zip(names(made), made.recipes, strict=True)
    ][3:] == [(False, 1), (False, 2), (False, 3), (True, 1)]
    (plan,) = made.recipes[-1].plans()
    assert made.recipe_of(plan) is made.recipes[-1]


CUT = Step("channel_pruning", Stage.STRUCTURE, {"groups": "a", "ratio": 0.5})


def test_layers_whose_channels_cannot_be_cut_are_named_beside_those_that_are() -> None:
    path = PruningPath("width", (Structure((CUT,), 0.1, 0.4, 0.2),))
    alone = {"stem": "a zero-padded shortcut counts on its width.", **{f"l{i}": "why." for i in range(5)}}
    parts = {ChannelPruning.name: Parts(ChannelPruning.parts, ("a",), alone)}
    probes = replace(FAST, parts=parts, paths=(path,))
    recipe = space_of(situation(probes=probes), with_structure()).recipes[2]
    assert "left alone: stem: a zero-padded shortcut counts on its width." in recipe.reason.fact
    assert recipe.reason.fact.endswith("and 2 more")


def test_the_structure_that_is_expected_to_fit_is_the_first_below_the_budgets() -> None:
    findings = tuple(Finding(Budget.parse(metric, "0.45x"), Standing.EXCEEDED, 1.0) for metric in ("latency_ms",))
    made = replace(situation(probes=with_blocks("b1", "b2", "b3", training=False)), baseline=Verdict(findings))
    recipe = space_of(made, with_structure()).recipes[2]
    assert recipe.likely == 1
    assert (recipe.predicted_latency, recipe.predicted_size) == (0.4, pytest.approx(0.2))


def test_without_training_data_structure_is_tried_untrained() -> None:
    probes = with_blocks("b1", training=False)
    search_space = space_of(situation(task=Task(test=many(3000)), probes=probes), with_structure())
    assert names(search_space) == ["int8_dynamic", "int8_static", "depth + int8_static"]
    assert search_space.refusals["distillation"].rule == "training"


def test_without_a_block_that_can_go_structure_and_recovery_are_refused() -> None:
    search_space = space_of(situation(), with_structure())
    assert names(search_space) == ["int8_dynamic", "int8_static"]
    assert search_space.refusals["block_dropping"].rule == "blocks"
    assert search_space.refusals["distillation"].rule == "recovery"


@pytest.mark.parametrize(
    ("smallest", "sentence"),
    [
        (None, "there was no time to measure what it would save."),
        (Structure((), None, 0.3, 0.2), "nothing that it can take is predicted to save what a budget asks for."),
    ],
)
def test_a_structure_technique_that_no_path_takes_is_refused_with_what_it_could_take(
    smallest: Structure | None, sentence: str
) -> None:
    parts = {**can_drop("b1"), ChannelPruning.name: Parts(ChannelPruning.parts, ("a", "b"))}
    probes = replace(with_blocks("b1", training=False), parts=parts, smallest=smallest)
    search_space = space_of(situation(probes=probes), with_structure())
    assert search_space.refusals[ChannelPruning.name] == Reason(
        sentence, "structure", "2 groups of channels can be cut"
    )
    assert BlockDropping.name not in search_space.refusals
    assert "depth + int8_static" in names(search_space)
    both = PruningPath("depth and width", (Structure((*drop("b1"), CUT), 0.1, 0.3, 0.2),))
    used = space_of(situation(probes=replace(probes, paths=(*probes.paths, both))), with_structure())
    assert not {ChannelPruning.name, BlockDropping.name} & set(used.refusals)
    assert "depth and width + int8_static" in names(used)


def test_a_path_of_a_technique_that_is_refused_is_no_recipe() -> None:
    probes = replace(with_blocks("b1", training=False), parts={})
    search_space = space_of(situation(probes=probes), with_structure())
    assert search_space.refusals[BlockDropping.name].rule == "blocks"
    assert names(search_space) == ["int8_dynamic", "int8_static"]


# chains of finishing steps


def test_steps_of_different_stages_follow_each_other_each_chain_a_recipe_of_its_own() -> None:
    search_space = space_of(situation(objective="size"), [Packing(), *shelf()])
    # after dynamic int8, which is slower than what is asked for, nothing is packed
    assert set(names(search_space)) == {
        "packed",
        "int8_dynamic",
        "int8_static",
        "int8_static + packed",
    }
    efforts = [recipe.effort for recipe in search_space.recipes]
    assert efforts == sorted(efforts)
    chain = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static + packed")
    assert chain.effort is Effort.CALIBRATION
    assert chain.techniques == ["int8_static", "packed"]
    assert chain.reason.sentence == (
        "weights and activations in int8, ranges from calibration data; then weights stand in a table."
    )
    plans = list(chain.plans())
    # what int8 loses by itself, and with which ranges it loses least, is seen without packing
    alone = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static")
    assert [plan.finish[:1] for plan in plans] == 2 * [next(alone.plans()).finish]
    for plan in plans:
        assert [step.stage for step in plan.finish] == [Stage.PRECISION, Stage.PACKING]
        assert search_space.recipe_of(plan) is chain


def test_a_chain_predicts_the_product_of_what_its_steps_are_known_to_change() -> None:
    packed = Probe("packed", {"codes": 256}, 1.3, 1.2, 1.4, 0.5)
    known = replace(FAST, probes=(*FAST.probes, packed))
    for probes, latency, size in ((FAST, 0.4, 0.3), (known, 0.4 * 1.3, 0.3 * 0.5)):
        search_space = space_of(situation(probes=probes, objective="size"), [Packing(), *shelf()])
        chain = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static + packed")
        assert (chain.predicted_latency, chain.predicted_size) == (pytest.approx(latency), pytest.approx(size))
    unknown = space_of(situation(probes=Probes()), [Packing(), *shelf()])
    assert {(recipe.predicted_latency, recipe.predicted_size) for recipe in unknown.recipes} == {(None, None)}


def test_chains_have_at_most_one_step_of_each_stage_and_single_steps_come_first() -> None:
    dynamic, static, packing = Int8Dynamic(), Int8Static(), Packing()
    chains = list(finishing_chains([packing, dynamic, static, BlockDropping(), Distillation()], "onnx"))
    assert set(chains) == {(packing,), (dynamic,), (static,), (dynamic, packing), (static, packing)}
    assert [len(chain) for chain in chains] == [1, 1, 1, 2, 2]
    assert list(finishing_chains([OtherFormat(), packing], "onnx")) == [(packing,)]
    other = OtherFormat()
    assert list(finishing_chains([other, packing], "tflite")) == [(other,)]
    assert list(finishing_chains([BlockDropping()], "onnx")) == []


def test_structure_is_finished_by_the_fastest_chain() -> None:
    packed = Probe("packed", {"codes": 256}, 0.9, 0.8, 1.0, 0.5)
    probes = replace(with_blocks("b1", training=False), probes=(*FAST.probes, packed))
    search_space = space_of(situation(probes=probes), [Packing(), *with_structure()])
    structured = [recipe for recipe in search_space.recipes if recipe.structures]
    assert [recipe.name for recipe in structured] == ["depth + int8_static + packed"]
    (plan,) = structured[0].plans()
    assert [step.technique for step in plan.steps] == [BlockDropping.name, "int8_static", "packed"]


# what recipes can reach


def test_every_technique_on_the_shelf_can_be_reached() -> None:
    require_reachable([technique() for technique in TECHNIQUES])


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        (Training, Stage.RECOVERY),
        (Training, Stage.STRUCTURE),
        (Training, Stage.WEIGHTS),
        (Distillation, Stage.WEIGHTS),
        (Distillation, Stage.STRUCTURE),
        (BlockDropping, Stage.WEIGHTS),
        (Distillation, Stage.PRECISION),
    ],
)
def test_a_technique_that_no_recipe_has_a_place_for_is_an_error_that_names_it(
    kind: type[Technique], stage: Stage
) -> None:
    odd = type("Odd", (kind,), {"name": "odd", "stage": stage})()
    with pytest.raises(PlanError, match=f"no recipe tries a Odd at stage {stage}") as caught:
        require_reachable([*shelf(), odd])
    assert caught.value.where == "odd"
    assert "recovery a ModelTechnique" in caught.value.hint


def test_a_name_that_stands_on_the_shelf_twice_is_an_error() -> None:
    with pytest.raises(PlanError, match="twice") as caught:
        require_reachable([*shelf(), Packing(), Int8Static()])
    assert caught.value.where == "int8_static"


# techniques that this version does not have


@pytest.mark.parametrize(
    ("name", "family", "answer"),
    [
        ("cnn", "cnn", "a convolutional network"),
        ("mlp", "mlp", "a multilayer perceptron"),
        ("lstm", "rnn", "a recurrent network"),
        ("transformer", "transformer", "a transformer"),
    ],
)
def test_what_is_not_on_the_shelf_is_listed_as_not_available_and_is_no_recipe(
    name: str, family: str, answer: str
) -> None:
    search_space = space_of(situation(facts=facts_of(name), probes=Probes()))
    (rule,) = (one for one in RULES if one.name == "family")
    (declared,) = (branch for branch in rule.branches if branch.answer == answer)
    missing = set(declared.effect.usual) - {technique.name for technique in shelf()}
    assert missing
    for technique in missing:
        reason = search_space.refusals[technique]
        assert reason.sentence == "not available in this version."
        assert reason.rule == "family"
        assert reason.fact.startswith(family)
    assert not missing & set(names(search_space))


@pytest.mark.parametrize(
    "task",
    [
        Task(test=many(3000)),
        TASK,
    ],
)
def test_quantization_aware_training_is_not_available_with_and_without_training_data(task: Task) -> None:
    reason = space_of(situation(task=task)).refusals["quantization_aware_training"]
    assert reason.sentence == "not available in this version."


@pytest.mark.parametrize("name", sorted({name for rule in RULES for b in rule.branches for name in b.effect.usual}))
@pytest.mark.parametrize("given", [case[3] for case in CASES if case[0] in ("family", "hardware", "what")])
def test_what_people_usually_use_is_tried_once_it_is_on_the_shelf(given: Situation, name: str) -> None:
    technique = type("Usual", (Training,), {"name": name, "effort": Effort.NONE})()
    search_space = space_of(given, [*shelf(), technique])
    assert name not in search_space.refusals
    assert name in names(search_space)


def test_what_is_usual_is_refused_by_what_it_needs_alone() -> None:
    technique = type("Usual", (Training,), {"name": "quantization_aware_training"})()
    without = space_of(situation(task=Task(test=many(3000))), [*shelf(), technique])
    assert without.refusals["quantization_aware_training"].rule == "training"
    assert "quantization_aware_training" in names(space_of(situation(), [*shelf(), technique]))


def test_no_rule_refuses_by_name() -> None:
    # under other names the same techniques are refused, for the same reasons
    for given in (case[3] for case in CASES):
        techniques = [technique() for technique in TECHNIQUES]
        renamed = [type("Renamed", (technique,), {"name": f"other_{technique.name}"})() for technique in TECHNIQUES]
        rules = {rule.name for rule in RULES}
        refused, others = (
            {
                name: reason
                for name, reason in space_of(given, shelf_).refusals.items()
                if reason.rule in rules and reason.sentence != NOT_AVAILABLE
            }
            for shelf_ in (techniques, renamed)
        )
        assert others == {f"other_{name}": reason for name, reason in refused.items()}


def test_what_pays_on_units_that_the_device_has_none_of_is_refused_with_those_that_it_has() -> None:
    reason = space_of(situation(), [*shelf(), OnSparseUnits()]).refusals["n_m_sparsity"]
    assert reason.rule == "hardware"
    assert reason.fact == "int8_dot_product"
    assert reason.sentence.startswith("it multiplies int8 directly")
    nothing = space_of(situation(probes=Probes()), [*shelf(), OnSparseUnits()]).refusals["n_m_sparsity"]
    assert (nothing.rule, nothing.fact) == ("hardware", "no unit for narrow or sparse numbers")


@pytest.mark.parametrize("unit", ["sparse_2_4", "sparse_1_4"])
def test_one_of_the_units_that_a_technique_pays_on_is_enough(unit: str) -> None:
    search_space = space_of(situation(features=(unit,)), [*shelf(), OnSparseUnits()])
    assert "n_m_sparsity" not in search_space.refusals
    assert "n_m_sparsity" in names(search_space)


@pytest.mark.parametrize(
    ("needed", "lacking"),
    [
        (frozenset(), False),
        ({"int8_dot_product"}, False),
        ({"sparse_2_4"}, True),
        ({"sparse_2_4", "fp16"}, False),
    ],
)
def test_hardware_is_what_the_profile_names_and_what_the_probes_found(needed: set[str], *, lacking: bool) -> None:
    technique = type("Needing", (Training,), {"hardware": frozenset(needed)})()
    # the profile names fp16, the probes found products of int8
    assert lacks_hardware(technique, situation(features=("fp16",))) == lacking


@pytest.mark.parametrize("given", [case[3] for case in CASES])
def test_everything_on_the_shelf_is_either_in_a_recipe_or_refused_with_rule_sentence_and_fact(given: Situation) -> None:
    techniques = [technique() for technique in TECHNIQUES]
    search_space = space_of(given, techniques)
    on_shelf = {technique.name for technique in techniques}
    in_recipes = {name for recipe in search_space.recipes for name in recipe.techniques}
    assert on_shelf == (in_recipes | set(search_space.refusals)) & on_shelf
    assert not in_recipes & set(search_space.refusals)
    known = {rule.name for rule in RULES} | {
        "probe",
        "quantizable",
        "format",
        "size",
        "blocks",
        "channels",
        "structure",
        "sensitivity",
    }
    for reason in search_space.refusals.values():
        assert reason.rule in {*known, "recovery"}
        assert reason.sentence.endswith(".")
        assert reason.fact


@pytest.mark.parametrize(("limit", "tried"), [(0.6, True), (0.3, False)])
def test_half_precision_is_tried_where_half_the_bytes_may_do(limit: float, *, tried: bool) -> None:
    search_space = space_of(situation(budgets=(share("size_mb", limit), DROP)), [*shelf(), Float16()])
    assert ("float16" in names(search_space)) == tried
    assert ("float16" in search_space.refusals) != tried


# warnings


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"task": None}, "unmeasured"),
        ({"task": Task(test=many(300))}, "resolution"),
        ({"budgets": (share("size_mb", 0.1),)}, "beyond"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_said_before_anything_is_tried(changes: dict[str, Any], rule: str) -> None:
    search_space = space_of(situation(**changes))
    assert answer_of(search_space, rule).answer == "yes"
    (warning,) = (warning for warning in search_space.warnings if answer_of(search_space, rule).sentence in warning)
    assert warning.startswith(answer_of(search_space, rule).found)


def test_a_budget_within_reach_is_not_warned_of() -> None:
    assert space_of(situation()).warnings == ()


def packing_situation(**changes: Any) -> Situation:
    """A CNN that has to be faster and far smaller than int8 makes it."""
    small = Budget.parse("size_mb", "0.16x")
    baseline = judged((small, Standing.EXCEEDED, 1.0), (TIME, Standing.EXCEEDED, 1.0), (DROP, Standing.MET, 0.0))
    figures = BaselineFigures(2.0, 4 * facts_of("cnn").parameters)
    return situation(**{"budgets": (small, TIME, DROP), "baseline": baseline, "figures": figures, **changes})


def test_palettes_follow_int8_from_many_values_to_few_with_a_size_for_each() -> None:
    search_space = space_of(packing_situation(), [*shelf(), Palettes()])
    chain = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static + palettes")
    plans = list(chain.plans())
    entries = [plan.finish[1].settings["entries"] for plan in plans]
    # sixteen values take half a byte each, more than is asked for
    assert entries == [8, 8, 6, 6, 4, 4]
    sizes = [chain.predicted(plan)[1] for plan in plans]
    assert sizes == sorted((size for size in sizes if size is not None), reverse=True)
    assert sizes[0] == sizes[1] == chain.predicted_size
    assert chain.predicted_latency == 0.4


def test_palettes_are_refused_where_nothing_asks_for_a_small_file() -> None:
    search_space = space_of(situation(budgets=(TIME, DROP)), [*shelf(), Palettes()])
    assert "palettes" not in {name for recipe in search_space.recipes for name in recipe.techniques}
    assert search_space.refusals["palettes"].rule == "size"


def test_palettes_are_trained_once_they_were_seen_to_lose_accuracy_with_the_values_that_fit() -> None:
    techniques = [*shelf(), Palettes(), PaletteTraining()]
    assert "not seen so far" in space_of(packing_situation(), techniques).refusals["palette_training"].fact
    packed = {"entries": 6, "groups": 4, "allocation": "measured", "samples": 256}
    probes = replace(FAST, packed=packed, step_seconds={"palette_training": 0.5})
    search_space = space_of(packing_situation(probes=probes), techniques)
    recipe = next(one for one in search_space.recipes if one.name == "int8_static + palette_training")
    first, second = recipe.plans()
    assert {"entries": 6, "groups": 4, "steps": 300}.items() <= first.finish[1].settings.items()
    assert recipe.effort is Effort.TRAINING
    assert recipe.predicted_seconds == recipe.seconds_of(first) == 150.0
    assert recipe.seconds_of(second) == 500.0


def test_packing_alone_is_left_out_where_float_is_too_slow() -> None:
    small = Budget.parse("size_mb", "0.16x")
    slow_enough = judged((small, Standing.EXCEEDED, 1.0))
    probes = replace(
        FAST, probes=(*FAST.probes, Probe("palettes", {"entries": 16, "groups": 1}, 1.0, 0.98, 1.02, 0.13))
    )
    techniques = [*shelf(), Palettes()]
    fast = space_of(packing_situation(probes=probes), techniques)
    small_alone = space_of(packing_situation(probes=probes, budgets=(small,), baseline=slow_enough), techniques)
    assert "palettes" not in names(fast)
    assert "palettes" in names(small_alone)


@pytest.mark.parametrize(
    ("size", "latency", "finish"),
    [
        ("0.5x", "0.5x", "int8_static"),
        # a structure that makes it fast enough makes it small enough, too
        ("0.2x", "0.2x", "int8_static"),
        ("0.16x", "0.5x", "int8_static + palettes"),
    ],
)
def test_structures_end_with_palettes_where_they_would_not_make_the_file_small_enough(
    size: str, latency: str, finish: str
) -> None:
    budgets = Budget.parse("size_mb", size), Budget.parse("latency_ms", latency)
    baseline = judged(*((budget, Standing.EXCEEDED, 1.0) for budget in budgets))
    asked = packing_situation(budgets=budgets, baseline=baseline)
    search_space = space_of(asked, [Int8Static(), Palettes()])
    recipe = search_space.finish
    assert recipe is not None
    assert recipe.name == finish
    assert len(list(recipe.plans())) == 1


def test_nothing_is_packed_where_the_file_is_expected_to_be_small_enough_without() -> None:
    search_space = space_of(situation(), [*shelf(), Palettes()])
    assert set(names(search_space)) == {"int8_dynamic", "int8_static"}
    reason = search_space.refusals["palettes"]
    assert (reason.rule, reason.fact) == ("size", "int8_static 0.30x")
    assert "int8_static + palettes" in names(space_of(situation(objective="size"), [*shelf(), Palettes()]))
