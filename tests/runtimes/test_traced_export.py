"""Tracing, where torch.export fails: accepted only where the trace holds on other values and batches too."""

from __future__ import annotations

from pathlib import Path

import pytest
from unusual_networks import UNUSUAL

from autocompress.core.runtime import Example
from autocompress.errors import ExportError
from autocompress.runtimes import OnnxRuntime


def example_of(name: str) -> tuple[OnnxRuntime, tuple[object, Example]]:
    module, given = UNUSUAL[name]()
    return OnnxRuntime(), (module, Example((given.numpy(),)))


def test_a_trace_that_holds_is_taken_and_said(tmp_path: Path) -> None:
    runtime, (module, example) = example_of("a check of values")
    artifact = runtime.export(module, example, tmp_path / "model.onnx", ("inner",))  # type: ignore[arg-type]
    assert artifact.fixed_batch is None
    (said,) = artifact.remarks
    assert "one call of it was traced" in said
    assert "(if torch.isnan(featur" in said
    assert artifact.copy_to(tmp_path / "copy" / "model.onnx").remarks == artifact.remarks


@pytest.mark.parametrize("name", ["a branch on values", "a branch on the batch"])
def test_a_trace_that_does_not_hold_leaves_the_first_error(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime, (module, example) = example_of(name)
    with pytest.raises(ExportError, match=r"unusual_networks.py, line \d+ \(if .*decides by the values of a tensor"):
        runtime.export(module, example, tmp_path / "model.onnx")  # type: ignore[arg-type]
    assert not "".join(capfd.readouterr())
