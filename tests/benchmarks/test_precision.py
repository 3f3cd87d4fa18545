"""The finishes that benchmarks/precision.py tries are plans that the registered techniques can do."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from autocompress.core.plan import Plan
from autocompress.core.tools import Tools
from autocompress.devices import LocalDevice
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import TECHNIQUES

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def precision() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        # the script imports what lies beside it
        patch.syspath_prepend(FOLDER)
        return importlib.import_module("precision")


def test_every_finish_is_a_possible_plan_of_its_own(precision: ModuleType) -> None:
    runtime = OnnxRuntime()
    tools = Tools(runtime, LocalDevice(runtime), tuple(one() for one in TECHNIQUES))
    finishes = [finish for name in precision.WEIGHTS for _, finish in precision.untrained(name)]
    finishes += [finish for name in precision.WEIGHTS for _, finish in precision.learned(name)]
    finishes += [finish for _, finish in precision.few_bits()]
    plans = [Plan((), finish) for finish in finishes]
    for plan in plans:
        tools.require_possible(plan)
    assert len({plan.hash for plan in plans}) == len(plans)


def test_cases_have_names_of_their_own_and_a_function(precision: ModuleType) -> None:
    assert set(precision.CASES) == {*precision.NETWORKS, *precision.HARDER, *precision.DEPTHS}
    assert all(callable(function) for function in precision.CASES.values())
