"""Networks of transformers with free axes: parity at three lengths and two batches, and an int8 run each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["BERT", "T5", "Llama"])
def test_a_network_of_a_library_keeps_its_axes_free(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = __import__("model_libraries")
    row = module.row_of(name, with_run=name == "BERT")
    assert row["refusal"] == ""
    assert {one.split()[-1] for one in row["free"] if one.startswith("input_ids")} == {"sequence"}
    assert len(row["agreed"]) == 6, row["sizes_refused"]
    assert row["largest_difference"] < 1e-3
    if name == "BERT":
        assert "int8" in row["plan"]
        assert row["free_in_result"] == row["free"]
    sys.modules.pop("model_libraries")
