from dataclasses import replace

import numpy as np
import pytest

from autocompress.core.measurement import Measurement, Reading
from autocompress.core.plan import Effort, Plan, Stage, Step
from autocompress.core.search_space import Element, Reason, Recipe, SearchSpace, SettingSpace
from autocompress.core.trial import Outcome, Trial
from autocompress.run.predicted_vs_measured import Predicted, predictions

INT8 = Element("int8_static", Stage.PRECISION, SettingSpace())
QUANTIZED = Recipe("int8_static", Effort.CALIBRATION, (INT8,), Reason("pays.", "probe"), 0.4, 0.26)
CUTS = tuple((Step("block_dropping", Stage.STRUCTURE, {"blocks": blocks}),) for blocks in ("a", "a b"))
DEPTH = Recipe(
    "depth",
    Effort.CALIBRATION,
    (INT8,),
    Reason("fits.", "structure"),
    0.2,
    0.1,
    structures=CUTS,
    nested=True,
    predictions=((0.3, 0.2), (0.2, 0.1)),
)
SEARCH_SPACE = SearchSpace((QUANTIZED, DEPTH), {})
INT8_PLAN = next(QUANTIZED.plans())
SHORT, SHORTER = DEPTH.plans()


def trial(number: int, plan: Plan, size: float = 2.5, latency: float | None = 4.0) -> Trial:
    readings = {"size_mb": Reading.one("MB", size)}
    baseline = {"size_mb": Reading.one("MB", 10.0)}
    if latency is not None:
        readings["latency_ms"] = Reading("ms", np.full((5, 4), latency))
        baseline["latency_ms"] = Reading("ms", np.full((5, 4), 10.0))
    return Trial(number, plan, Outcome.MEASURED, Measurement(readings, baseline), seconds={"build": 3.0})


def test_a_structure_is_predicted_by_itself_and_other_plans_by_their_recipe() -> None:
    assert QUANTIZED.predicted(INT8_PLAN) == (0.4, 0.26)
    assert [DEPTH.predicted(plan) for plan in (SHORT, SHORTER)] == [(0.3, 0.2), (0.2, 0.1)]
    assert replace(DEPTH, predictions=()).predicted(SHORT) == (0.2, 0.1)


def test_each_recipe_and_structure_has_the_row_of_its_first_trial() -> None:
    rows = predictions(SEARCH_SPACE, [trial(1, INT8_PLAN), trial(2, SHORT), trial(3, SHORT), trial(4, SHORTER)], "p50")
    assert [(row.number, row.recipe) for row in rows] == [(1, "int8_static"), (2, "depth"), (4, "depth")]
    assert rows[0] == Predicted(1, "int8_static", 0.4, pytest.approx(0.4), 0.26, 0.25, None, None)


def test_what_was_not_measured_is_empty_and_what_no_recipe_holds_is_left_out() -> None:
    unmeasured = Trial(2, SHORT, Outcome.FAILED)
    rows = predictions(SEARCH_SPACE, [trial(1, INT8_PLAN, latency=None), unmeasured, trial(3, Plan())], "p50")
    assert [(row.number, row.latency) for row in rows] == [(1, None)]


def test_the_seconds_of_a_round_of_training_stand_beside_what_was_predicted() -> None:
    trained = replace(QUANTIZED, predicted_seconds=2.0)
    took = replace(trial(1, INT8_PLAN), seconds={"training": 3.0, "build": 1.0})
    (row,) = predictions(SearchSpace((trained,), {}), [took], "p50")
    assert (row.predicted_seconds, row.seconds) == (2.0, 3.0)
    assert row.to_json()["recipe"] == "int8_static"
