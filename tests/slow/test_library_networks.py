"""Networks of libraries: parity at several lengths and two batches, and an int8 run each."""

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


def test_a_detector_of_a_library_is_compared_up_to_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = __import__("model_libraries")
    row = module.row_of("torchvision ssdlite320_mobilenet_v3_large", with_run=False)
    assert row["refusal"] == ""
    assert row["agreed"] == ["320, batch 1", "320, batch 3"], row["sizes_refused"]
    sys.modules.pop("model_libraries")
