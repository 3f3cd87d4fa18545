from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest

from autocompress.analysis.inspection import inspect_module
from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.facts import Facts, Family
from autocompress.core.plan import Effort, Setting, Stage, Step
from autocompress.core.probes import Bracket, Probe, Probes, PruningPath, Structure, TrainingProbe
from autocompress.core.profile import DeviceProfile, Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import Answer, Choice, Reason, SearchSpace, SettingSpace
from autocompress.core.source import ArraySource
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, Context, Technique
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.planner.questions import RULES
from autocompress.planner.rules import Situation
from autocompress.planner.tree import build_search_space
from autocompress.techniques import SHELF, TECHNIQUES, Float16, Int8Dynamic, Int8Static
from autocompress.testing.networks import labelled, labelled_source, small_model

ONNX = frozenset({"onnx"})
DROP = Budget("max_accuracy_drop_pp", 1.0)


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

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        return artifact


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
    objective = changes.pop("objective", "effort")
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
    return [technique() for technique in SHELF if technique is not Float16]


def ladder_of(found: Situation, techniques: Sequence[Technique] | None = None) -> SearchSpace:
    return build_search_space(found, techniques if techniques is not None else shelf(), ONNX)


def answer_of(search_space: SearchSpace, rule: str) -> Answer:
    (answer,) = (answer for answer in search_space.path if answer.rule == rule)
    return answer


def names(search_space: SearchSpace) -> list[str]:
    return [recipe.name for recipe in search_space.recipes]


def smallest(latency: float, size: float) -> Probes:
    return replace(FAST, smallest=Structure((), None, latency, size))


# every rule, every branch: (rule, answer, a part of what was found, the situation)
CASES: Sequence[tuple[str, str, str, Situation]] = (
    ("fits", "yes", "all size and time budgets are met", situation(baseline=judged((SIZE, Standing.MET, 0.4)))),
    ("fits", "no", "size_mb <= 0.5x: 1; latency_ms <= 0.5x: 1", situation()),
    ("fits", "no", "not every budget is measured", situation(baseline=judged((SIZE, Standing.UNMEASURED, None)))),
    ("fits", "no", "not every budget is measured", situation(baseline=judged((DROP, Standing.MET, 0.0)))),
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
    ("resolution", "no", "no data", situation(task=None)),
    ("resolution", "no", "holdout items can show a drop of", situation()),
    ("resolution", "no", "no limit on the accuracy drop", situation(task=Task(test=many(3)), budgets=(SIZE,))),
    ("beyond", "yes", "latency_ms <= 0.3x where int8 reached 0.40x", situation(budgets=(share("latency_ms", 0.3),))),
    ("beyond", "yes", "size_mb <= 0.2x where int8 reached 0.30x", situation(budgets=(share("size_mb", 0.2),))),
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
    answer = answer_of(ladder_of(given), rule)
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
    search_space = ladder_of(situation(probes=smallest(0.6, 0.2)), [Training()])
    assert search_space.out_of_reach
    assert search_space.refusals["retrained"].rule == "reachable"
    assert not ladder_of(situation(probes=smallest(0.3, 0.2)), [Training()]).out_of_reach


def test_the_path_answers_every_rule_in_order() -> None:
    assert [answer.rule for answer in ladder_of(situation()).path] == [rule.name for rule in RULES]


# what the answers lead to


def test_a_model_that_fits_already_ends_with_an_empty_ladder_and_a_reason_for_everything() -> None:
    search_space = ladder_of(situation(baseline=judged((SIZE, Standing.MET, 0.4), (TIME, Standing.MET, 0.4))))
    assert search_space.recipes == ()
    assert [answer.rule for answer in search_space.path] == ["fits"]
    assert set(search_space.refusals) == {"int8_dynamic", "int8_static"}
    for reason in search_space.refusals.values():
        assert reason.rule == "fits"
        assert "nothing to do" in reason.sentence
        assert reason.fact == "all size and time budgets are met"


def test_a_model_that_is_not_measured_as_fitting_is_not_taken_to_fit() -> None:
    for standing in (Standing.UNDECIDED, Standing.UNMEASURED, Standing.EXCEEDED):
        baseline = judged((SIZE, Standing.MET, 0.4), (TIME, standing, None))
        assert names(ladder_of(situation(baseline=baseline)))


def test_without_data_static_int8_is_refused_for_that_reason() -> None:
    search_space = ladder_of(situation(task=None))
    assert names(search_space) == ["int8_dynamic"]
    assert search_space.refusals["int8_static"] == Reason(
        "needs calibration data, and there are none.", "calibration", "no data"
    )


def test_with_data_both_techniques_make_a_rung() -> None:
    assert set(names(ladder_of(situation()))) == {"int8_dynamic", "int8_static"}


def test_without_training_data_what_trains_is_refused_for_that_reason() -> None:
    techniques = [Training(), *shelf()]
    search_space = ladder_of(situation(task=Task(test=many(3000))), techniques)
    assert search_space.refusals["retrained"] == Reason(
        "needs training data, and there are none.", "training", "no training data"
    )
    assert "retrained" in names(ladder_of(situation(), techniques))


def test_a_technique_for_other_files_is_refused_for_that_reason() -> None:
    search_space = ladder_of(situation(), [OtherFormat(), *shelf()])
    assert search_space.refusals["other_format"] == Reason("cannot change onnx files.", "format", "onnxruntime")
    assert "other_format" not in names(search_space)


def test_a_technique_that_covers_no_layer_is_refused_with_the_share_of_the_work() -> None:
    reason = ladder_of(situation(facts=facts_of("lstm"), probes=Probes())).refusals["int8_static"]
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
    search_space = ladder_of(situation(probes=SLOW, **asks))
    assert search_space.recipes == ()
    dynamic, static = search_space.refusals["int8_dynamic"], search_space.refusals["int8_static"]
    assert (dynamic.rule, static.rule) == ("probe", "probe")
    assert "3.0x slower than float" in dynamic.sentence
    assert dynamic.fact == "3.00x the float latency (2.70 to 3.30), best of 2 settings"
    assert "1.2x slower than float" in static.sentence
    assert static.fact == "1.20x the float latency (1.08 to 1.32), best of 4 settings"


@pytest.mark.parametrize("objective", ["effort", "size", "accuracy"])
def test_where_time_does_not_matter_slow_probes_refuse_nothing(objective: str) -> None:
    search_space = ladder_of(situation(probes=SLOW, budgets=(SIZE, DROP), objective=objective))
    assert names(search_space) == ["int8_dynamic", "int8_static"]


def test_where_time_matters_only_the_settings_that_pay_are_tried_fastest_first() -> None:
    search_space = ladder_of(situation(probes=probes_of([0.9, 1.1], [0.9, 1.3, 0.5, 1.01])))
    tried = {recipe.name: [step.finish[0].settings for step in recipe.plans()] for recipe in search_space.recipes}
    assert {bool(settings["per_channel"]) for settings in tried["int8_dynamic"]} == {True}
    assert [settings["per_channel"] for settings in tried["int8_static"]] == [False] * 3 + [True] * 3
    assert {settings["activation"] for settings in tried["int8_static"]} == {"uint8"}


def test_where_time_does_not_matter_all_settings_that_worked_are_tried() -> None:
    search_space = ladder_of(situation(probes=SLOW, budgets=(SIZE,)))
    static = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static")
    assert len(list(static.plans())) == 4 * 3


def test_a_technique_whose_every_probe_failed_is_refused_with_the_failure() -> None:
    failed = Probes(
        tuple(Probe("int8_dynamic", settings, None, failure="no kernel.") for settings in Int8Dynamic.probed)
    )
    search_space = ladder_of(situation(probes=failed))
    assert search_space.refusals["int8_dynamic"].rule == "probe"
    assert "no kernel." in search_space.refusals["int8_dynamic"].sentence
    assert names(search_space) == ["int8_static"]


def test_a_technique_that_was_not_probed_is_tried_and_says_so() -> None:
    search_space = ladder_of(situation(probes=Probes()))
    for recipe in search_space.recipes:
        assert "nothing was probed" in recipe.reason.sentence
        assert (recipe.predicted_latency, recipe.predicted_size) == (None, None)


def test_a_rung_predicts_what_its_best_probe_measured() -> None:
    search_space = ladder_of(situation())
    static = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static")
    assert (static.predicted_latency, static.predicted_size) == (0.4, 0.3)
    assert static.reason == Reason("0.40x the float latency on the dominant layers here.", "probe", "0.36 to 0.44")


def test_a_rung_predicts_of_the_whole_model_what_its_first_plan_measured_there() -> None:
    first, second = (
        replace(probe, ratio=ratio, size_ratio=size, whole=True)
        for probe, ratio, size in zip(FAST.probes[2:4], (0.62, 0.61), (0.27, 0.26), strict=True)
    )
    search_space = ladder_of(situation(probes=replace(FAST, probes=(*FAST.probes, first, second))))
    static = next(recipe for recipe in search_space.recipes if recipe.name == "int8_static")
    # the second is faster by less than tells them apart
    assert (static.predicted_latency, static.predicted_size) == (0.62, 0.27)
    assert static.reason.sentence == "0.62x the float latency of the model here."


def test_rungs_are_ordered_by_effort_before_speed() -> None:
    everything = [Training(), Int8Static(), Int8Dynamic()]
    for techniques in (everything, everything[::-1]):
        search_space = ladder_of(situation(), techniques)
        assert names(search_space) == ["int8_dynamic", "int8_static", "retrained"]
        # static is the faster one by far
        assert (search_space.recipes[1].predicted_latency or 1.0) < (search_space.recipes[0].predicted_latency or 1.0)


# structure and training


def drop(*blocks: str) -> tuple[Step, ...]:
    return (Step("block_dropping", Stage.STRUCTURE, {"blocks": " ".join(blocks)}),)


def with_blocks(*blocks: str, training: bool) -> Probes:
    """What was probed where these blocks can go one after the other, and a step of training takes half a second."""
    structures = tuple(Structure(drop(*blocks[: k + 1]), 0.1, 0.5 - 0.1 * k, 0.3 - 0.1 * k) for k in range(len(blocks)))
    schedule = (
        TrainingProbe(32, 0.1, "sgd", 0.5, brackets=(Bracket((drop(*blocks),), (100, 300, 900), (1, 1, 1)),))
        if training
        else None
    )
    return replace(FAST, blocks=blocks, ways=(PruningPath("depth", structures),), training=schedule)


def test_structure_comes_after_int8_and_training_after_both_each_round_longer_than_the_last() -> None:
    techniques = with_structure()[::-1]
    search_space = ladder_of(situation(probes=with_blocks("b1", "b2", training=True)), techniques)
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


def test_where_no_quantization_pays_structure_and_training_are_tried_in_float() -> None:
    probes = replace(with_blocks("b1", "b2", training=True), probes=SLOW.probes)
    search_space = ladder_of(situation(probes=probes), with_structure())
    assert {"int8_dynamic", "int8_static"} <= search_space.refusals.keys()
    assert names(search_space) == ["depth", *(f"structure + distillation x{number}" for number in (1, 2, 3))]
    for recipe in search_space.recipes:
        for plan in recipe.plans():
            assert plan.finish == ()
            assert recipe.holds(plan)


def test_a_course_of_smaller_structures_follows_all_rounds_of_the_one_before() -> None:
    probes = with_blocks("b1", "b2", training=True)
    smaller = Bracket((drop("b1", "b2", "b3"),), (100,), (1,))
    training = probes.training and replace(probes.training, brackets=(*probes.training.brackets, smaller))
    made = ladder_of(situation(probes=replace(probes, training=training)), with_structure())
    assert [
        (name.startswith("smaller"), len(recipe.rounds)) for name, recipe in zip(names(made), made.recipes, strict=True)
    ][3:] == [(False, 1), (False, 2), (False, 3), (True, 1)]
    (plan,) = made.recipes[-1].plans()
    assert made.recipe_of(plan) is made.recipes[-1]


def test_layers_whose_channels_cannot_be_cut_are_named_beside_those_that_are() -> None:
    cut = Step("channel_pruning", Stage.STRUCTURE, {"groups": "a", "ratio": 0.5})
    way = PruningPath("width", (Structure((cut,), 0.1, 0.4, 0.2),))
    alone = {"stem": "a zero-padded shortcut counts on its width.", **{f"l{i}": "why." for i in range(5)}}
    probes = replace(FAST, groups=("a",), left_alone=alone, ways=(way,))
    recipe = ladder_of(situation(probes=probes), with_structure()).recipes[2]
    assert "left alone: stem: a zero-padded shortcut counts on its width." in recipe.reason.fact
    assert recipe.reason.fact.endswith("and 2 more")


def test_the_structure_that_is_expected_to_fit_is_the_first_below_the_budgets() -> None:
    findings = tuple(Finding(Budget.parse(metric, "0.45x"), Standing.EXCEEDED, 1.0) for metric in ("latency_ms",))
    made = replace(situation(probes=with_blocks("b1", "b2", "b3", training=False)), baseline=Verdict(findings))
    recipe = ladder_of(made, with_structure()).recipes[2]
    assert recipe.likely == 1
    assert (recipe.predicted_latency, recipe.predicted_size) == (0.4, pytest.approx(0.2))


def test_without_training_data_structure_is_tried_untrained() -> None:
    probes = with_blocks("b1", training=False)
    search_space = ladder_of(situation(task=Task(test=many(3000)), probes=probes), with_structure())
    assert names(search_space) == ["int8_dynamic", "int8_static", "depth + int8_static"]
    assert search_space.refusals["distillation"].rule == "training"


def test_without_a_block_that_can_go_structure_and_recovery_are_refused() -> None:
    search_space = ladder_of(situation(), with_structure())
    assert names(search_space) == ["int8_dynamic", "int8_static"]
    assert search_space.refusals["block_dropping"].rule == "blocks"
    assert search_space.refusals["distillation"].rule == "recovery"


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
def test_what_is_not_on_the_shelf_is_listed_as_not_available_and_is_no_rung(
    name: str, family: str, answer: str
) -> None:
    search_space = ladder_of(situation(facts=facts_of(name), probes=Probes()))
    (rule,) = (one for one in RULES if one.name == "family")
    (declared,) = (branch for branch in rule.branches if branch.answer == answer)
    missing = set(declared.effect.refuse) - {technique.name for technique in shelf()}
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
    reason = ladder_of(situation(task=task)).refusals["quantization_aware_training"]
    assert reason.sentence == "not available in this version."


@pytest.mark.parametrize("given", [case[3] for case in CASES])
def test_everything_on_the_shelf_is_either_a_rung_or_refused_with_rule_sentence_and_fact(given: Situation) -> None:
    techniques = [technique() for technique in TECHNIQUES]
    search_space = ladder_of(given, techniques)
    on_shelf = {technique.name for technique in techniques}
    assert on_shelf == (set(names(search_space)) | set(search_space.refusals)) & on_shelf
    assert not set(names(search_space)) & set(search_space.refusals)
    known = {rule.name for rule in RULES} | {"probe", "quantizable", "format", "size"}
    for reason in search_space.refusals.values():
        assert reason.rule in known
        assert reason.sentence.endswith(".")
        assert reason.fact


@pytest.mark.parametrize(("limit", "tried"), [(0.6, True), (0.3, False)])
def test_half_precision_is_tried_where_half_the_bytes_may_do(limit: float, *, tried: bool) -> None:
    search_space = ladder_of(situation(budgets=(share("size_mb", limit), DROP)), [*shelf(), Float16()])
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
    search_space = ladder_of(situation(**changes))
    assert answer_of(search_space, rule).answer == "yes"
    (warning,) = (warning for warning in search_space.warnings if answer_of(search_space, rule).sentence in warning)
    assert warning.startswith(answer_of(search_space, rule).found)


def test_a_budget_within_reach_is_not_warned_of() -> None:
    assert ladder_of(situation()).warnings == ()
