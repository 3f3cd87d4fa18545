from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.plan import Effort, Plan, Setting, Stage, Step
from autocompress.core.search_space import (
    Choice,
    Decision,
    Element,
    Reason,
    Recipe,
    SearchSpace,
    SettingSpace,
    check_settings,
)
from autocompress.errors import PlanError

TYPES = Choice("types", ("u8s8", "u8u8"))
PER_CHANNEL = Choice("per_channel", (True, False))
METHOD = Choice("calibration", ("minmax", "entropy", "percentile"), structural=False)
BITS = Choice("bits", (4, 8))
STATIC = Element("int8_static", Stage.PRECISION, SettingSpace((METHOD, TYPES, PER_CHANNEL)))
CODEBOOK = Element("codebook", Stage.PACKING, SettingSpace((BITS,)))
WHY = Reason("int8 pays here.", "int8-pays", "ratio 0.4")
RUNG = Recipe("int8 static and codebooks", Effort.CALIBRATION, (STATIC, CODEBOOK), WHY, predicted_latency=0.4)

OPTIONS = st.lists(st.one_of(st.integers(), st.booleans(), st.text(max_size=5)), min_size=1, max_size=3)
CHOICES = st.lists(
    st.builds(Choice, st.text(max_size=5), OPTIONS.map(tuple), st.booleans()),
    max_size=4,
    unique_by=lambda choice: choice.name,
)


def test_structural_settings_vary_slowest_and_the_first_options_come_first() -> None:
    grid = list(STATIC.space.grid())
    assert [(s["types"], s["per_channel"], s["calibration"]) for s in grid] == list(
        product(TYPES.options, PER_CHANNEL.options, METHOD.options)
    )


def test_a_space_without_choices_has_one_setting() -> None:
    assert list(SettingSpace().grid()) == [{}]


def test_combinations_restrict_their_settings_and_come_in_their_order() -> None:
    joint: tuple[dict[str, Setting], ...] = (
        {"types": "u8u8", "per_channel": False},
        {"types": "u8s8", "per_channel": True},
    )
    grid = list(SettingSpace((METHOD, TYPES, PER_CHANNEL), joint).grid())
    assert grid == [{**chosen, "calibration": method} for chosen in joint for method in METHOD.options]


@settings(deadline=None)
@given(CHOICES)
def test_the_grid_is_every_choice_of_options_and_each_is_allowed(choices: list[Choice]) -> None:
    grid = list(SettingSpace(tuple(choices)).grid())
    expected = 1
    for choice in choices:
        expected *= len(choice.options)
    assert len(grid) == expected
    assert grid[0] == {choice.name: choice.options[0] for choice in choices}
    for chosen in grid:
        check_settings("technique", choices, chosen)


@settings(deadline=None)
@given(CHOICES)
def test_in_the_grid_settings_of_the_same_structure_stand_together(choices: list[Choice]) -> None:
    different = [Choice(c.name, tuple(dict.fromkeys(map(repr, c.options))), c.structural) for c in choices]
    space = SettingSpace(tuple(different))
    structures = [tuple(sorted(space.structural(chosen).items())) for chosen in space.grid()]
    changes = sum(one != other for one, other in pairwise(structures))
    assert changes == len(set(structures)) - 1


def test_the_structure_of_settings_is_what_decides_size_and_latency() -> None:
    chosen: dict[str, Setting] = {"types": "u8s8", "per_channel": True, "calibration": "entropy"}
    assert STATIC.space.structural(chosen) == {"types": "u8s8", "per_channel": True}


def test_allowed_settings_pass() -> None:
    check_settings("codebook", [BITS, PER_CHANNEL], {"bits": 8, "per_channel": False})


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"bits": 4, "bit": 8}, "no setting 'bit'"),
        ({"bits": 5}, "bits cannot be 5"),
        ({"bits": "4"}, "bits cannot be '4'"),
        ({"bits": 4.0}, "bits cannot be 4.0"),
        ({}, "lacks the setting 'bits'"),
    ],
)
def test_settings_that_are_not_allowed_are_refused_by_technique_and_name(chosen: dict[str, Setting], said: str) -> None:
    with pytest.raises(PlanError, match=said) as caught:
        check_settings("codebook", [BITS], chosen)
    assert caught.value.where == "codebook"


@pytest.mark.parametrize("value", [1, 0, 1.0])
def test_a_number_is_not_a_yes_or_no(value: float) -> None:
    with pytest.raises(PlanError, match="per_channel cannot be"):
        check_settings("int8_static", [PER_CHANNEL], {"per_channel": value})


def test_the_error_on_a_setting_says_what_is_allowed() -> None:
    with pytest.raises(PlanError) as unknown:
        check_settings("codebook", [BITS, TYPES], {"bit": 4})
    assert unknown.value.hint == "Known: bits, types."
    with pytest.raises(PlanError) as wrong:
        check_settings("codebook", [BITS], {"bits": 5})
    assert wrong.value.hint == "Options: 4, 8."


def test_an_optional_setting_is_absent_unless_a_combination_gives_it() -> None:
    names = Choice("in_float", (), optional=True)
    assert list(SettingSpace((BITS, names)).grid()) == [{"bits": 4}, {"bits": 8}]
    given = SettingSpace((BITS, names), ({"in_float": "head"}, {}))
    assert list(given.grid()) == [
        {"in_float": "head", "bits": 4},
        {"in_float": "head", "bits": 8},
        *({"bits": 4}, {"bits": 8}),
    ]
    assert given.structural({"in_float": "head", "bits": 4}) == {"in_float": "head", "bits": 4}
    for chosen in given.grid():
        check_settings("int8_static", [BITS, names], chosen)
    with pytest.raises(PlanError, match="in_float cannot be 3"):
        check_settings("int8_static", [BITS, names], {"bits": 4, "in_float": 3})


def test_a_rung_makes_a_plan_of_every_combination_of_its_settings() -> None:
    plans = list(RUNG.plans())
    assert len({plan.hash for plan in plans}) == len(plans) == 12 * 2
    assert all([step.technique for step in plan.finish] == ["int8_static", "codebook"] for plan in plans)
    assert all(plan.rounds == () for plan in plans)
    assert plans[0].finish == (
        Step("int8_static", Stage.PRECISION, {"types": "u8s8", "per_channel": True, "calibration": "minmax"}),
        Step("codebook", Stage.PACKING, {"bits": 4}),
    )


def test_plans_that_differ_in_numbers_only_have_the_same_structure() -> None:
    structures: dict[tuple[Step, ...], list[Plan]] = {}
    for plan in RUNG.plans():
        structures.setdefault(RUNG.fixed_by(plan), []).append(plan)
    assert len(structures) == 2 * 2 * 2
    for structure, plans in structures.items():
        assert {plan.finish[0].settings["calibration"] for plan in plans} == set(METHOD.options)
        assert len({(plan.finish[0].settings["types"], plan.finish[1]) for plan in plans}) == 1
        assert "calibration" not in structure[0].settings
        assert structure[1] == plans[0].finish[1]


def test_a_plan_is_found_on_the_rung_of_its_techniques() -> None:
    static = Recipe("int8 static", Effort.CALIBRATION, (STATIC,), WHY)
    search_space = SearchSpace((Recipe("baseline", Effort.NONE, (), WHY), static, RUNG), {})
    assert search_space.recipe_of(next(RUNG.plans())) is RUNG
    assert search_space.recipe_of(next(static.plans())) is static
    assert search_space.recipe_of(Plan()) is search_space.recipes[0]
    assert search_space.recipe_of(Plan(finish=(Step("fp16", Stage.PRECISION, {}),))) is None


def test_a_ladder_is_written_with_reasons_refusals_and_its_path() -> None:
    refusal = Reason("dynamic int8 slows convolutions.", "dynamic-needs-matmuls", "convolution share 0.99")
    answer = Decision(
        "int8-pays", "Does int8 pay here?", "yes", "0.4", "int8 is tried.", {"no": "it is not."}, "a probe"
    )
    written = SearchSpace((RUNG,), {"int8_dynamic": refusal}, (answer,), ("too few items",)).to_json()
    assert written["recipes"] == [
        {
            "name": "int8 static and codebooks",
            "effort": "calibration",
            "techniques": ["int8_static", "codebook"],
            "plans": 24,
            "reason": {"sentence": "int8 pays here.", "rule": "int8-pays", "fact": "ratio 0.4"},
            "predicted_latency": 0.4,
            "predicted_size": None,
            "predicted_seconds": None,
            "expected_drop_pp": None,
        }
    ]
    assert written["refusals"]["int8_dynamic"]["rule"] == "dynamic-needs-matmuls"
    assert written["decisions"][0] == {
        "rule": "int8-pays",
        "question": "Does int8 pay here?",
        "answer": "yes",
        "found": "0.4",
        "sentence": "int8 is tried.",
        "not_taken": {"no": "it is not."},
        "source": "a probe",
    }
    assert written["warnings"] == ["too few items"]
