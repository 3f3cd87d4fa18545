from __future__ import annotations

import pytest

from autocompress.core.budget import Budget
from autocompress.core.plan import Effort, Plan, Stage, Step
from autocompress.core.search_space import Element, Reason, Recipe, SearchSpace, SettingSpace
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.structure.candidates import WORTH_ANOTHER, nearly_fitted

LIMIT = 0.2
CUTS = tuple((Step("block_dropping", Stage.STRUCTURE, {"blocks": blocks}),) for blocks in ("a", "a b"))
FINISH = (Element("int8_static", Stage.PRECISION, SettingSpace()),)
SEARCH_SPACE = SearchSpace(
    (Recipe("depth", Effort.CALIBRATION, FINISH, Reason("because.", "structure"), structures=CUTS, nested=True),), {}
)


def trial(size: float, plan: Plan | None = None) -> Trial:
    """A trial of the first cut whose file is so large, as a share."""
    standing = Standing.MET if size <= LIMIT else Standing.EXCEEDED
    finding = Finding(Budget("size_mb", LIMIT, relative=True), standing, size, size, size)
    outcome = Outcome.MEASURED if size <= LIMIT else Outcome.STOPPED
    first = next(SEARCH_SPACE.recipes[0].plans())
    stopped_by = "" if size <= LIMIT else "size_mb"
    return Trial(1, plan or first, outcome, verdict=Verdict((finding,)), stopped_by=stopped_by)


@pytest.mark.parametrize(
    ("sizes", "nearly"),
    [
        ([], False),
        ([0.99 * LIMIT * WORTH_ANOTHER], True),
        # nothing of this network will get there
        ([1.01 * LIMIT * WORTH_ANOTHER], False),
        ([5 * LIMIT, 1.1 * LIMIT], True),
        # met, but by so little that it would be lost to noise when all training is done
        ([0.99 * LIMIT], True),
        ([0.5 * LIMIT], False),
        ([1.1 * LIMIT, 0.5 * LIMIT], False),
    ],
)
def test_another_look_is_worth_it_when_nothing_fitted_and_something_came_close(
    sizes: list[float], nearly: bool
) -> None:
    assert nearly_fitted(SEARCH_SPACE, [trial(size) for size in sizes]) is nearly


def test_what_was_only_quantized_says_nothing_of_structure() -> None:
    quantized = Plan(finish=next(SEARCH_SPACE.recipes[0].plans()).finish)
    assert not nearly_fitted(SEARCH_SPACE, [trial(1.1 * LIMIT, quantized)])
