"""A part of benchmarks/verdicts.py: gates that are asked about a drop at the limit pass no more often than stated."""

from __future__ import annotations

import importlib
import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

GATES = 600
FILE = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"


@pytest.fixture(scope="module")
def verdicts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verdicts", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # the script imports what lies beside it
        patch.syspath_prepend(FILE.parent)
        spec.loader.exec_module(module)
    return module


def error_of(rate: float) -> float:
    return 4 * math.sqrt(rate * (1 - rate) / GATES)


@pytest.mark.parametrize(("n", "changed"), [(500, 0.08), (1_000, 0.04), (10_000, 0.08)])
def test_a_drop_at_the_limit_seldom_passes_even_when_the_gate_peeks(
    verdicts: ModuleType, n: int, changed: float
) -> None:
    row = verdicts.one_setting(np.random.default_rng(1), GATES, n, changed, verdicts.LIMIT)
    for gate in ("at_once", "in_chunks"):
        assert row[gate] <= verdicts.ALPHA + error_of(verdicts.ALPHA)
    assert row["point_estimate"] > 0.3


def test_the_best_of_thirty_that_all_lose_too_much_seldom_passes(verdicts: ModuleType) -> None:
    row = verdicts.best_of_many(np.random.default_rng(2), GATES, 1_000, 0.08)
    assert row["confirmed"] <= verdicts.ALPHA + error_of(verdicts.ALPHA)
    assert row["point_estimate"] > 0.9


def test_what_loses_nothing_passes_with_enough_items_and_few_are_read(verdicts: ModuleType) -> None:
    row = verdicts.one_setting(np.random.default_rng(3), GATES, 10_000, 0.01, 0.0)
    assert row["in_chunks"] > 0.99
    assert row["items_read"] < 3_000


@pytest.mark.parametrize("name", ["rare total losses", "token accuracy", "PSNR-like"])
def test_kinds_of_scores_seldom_pass_at_the_limit_and_pass_where_nothing_is_lost(
    verdicts: ModuleType, name: str
) -> None:
    kinds = importlib.import_module("score_kinds")
    kind = replace(kinds.KINDS[name], items=1_000, limit=2 * kinds.KINDS[name].limit)
    at_limit, none = (
        kinds.replayed(kind, np.random.default_rng(4), gates, drop, kind.limit)
        for gates, drop in ((30, kind.limit), (5, 0.0))
    )
    assert at_limit["passed"] <= verdicts.ALPHA + 4 * math.sqrt(verdicts.ALPHA * (1 - verdicts.ALPHA) / 30)
    assert none["passed"] == 1.0
    assert (none["items_read"] < kind.items) == (kind.bounds is not None)
