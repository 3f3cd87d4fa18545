from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from autocompress.core.runtime import Example
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.exporter_tables import exporter_tables_kept


def test_tables_are_kept_from_block_to_block_and_nothing_else_of_the_exporter_changes() -> None:
    before = dict(vars(ONNXRegistry))
    with exporter_tables_kept():
        first = ONNXRegistry.from_torchlib()
    with exporter_tables_kept():
        assert ONNXRegistry.from_torchlib() is first
    assert dict(vars(ONNXRegistry)) == before
    assert ONNXRegistry.from_torchlib() is not first


def test_an_operator_that_is_added_after_an_export_is_exported(tmp_path: Path) -> None:
    inputs = (np.ones((2, 3), np.float32),)
    OnnxRuntime().export(nn.Linear(3, 3), Example(inputs), tmp_path / "before.onnx")
    library = torch.library.Library("autocompress_tests", "DEF")
    library.define("thrice(Tensor values) -> Tensor")
    library.impl("thrice", lambda values: values * 3, "CompositeImplicitAutograd")

    class Thrice(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            tripled: torch.Tensor = torch.ops.autocompress_tests.thrice(values)
            return tripled

    made = OnnxRuntime().export(Thrice(), Example(inputs), tmp_path / "after.onnx")
    (found,) = OnnxRuntime().load(made, 1, {}).run({made.inputs[0].name: inputs[0]})
    np.testing.assert_array_equal(found, 3 * inputs[0])
