from __future__ import annotations

import numpy as np
import onnx
import pytest
from torch import nn

from autocompress.analysis.channel_multiple import _width, probe_multiple
from autocompress.analysis.inspection import inspect_module
from autocompress.core.artifact import Artifact
from autocompress.core.profile import load_profile
from autocompress.core.runtime import Example
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.fakes import FakeDevice


def in_steps_of(step: int, artifact: Artifact) -> Artifact:
    """The artifact, written to take time for channels in steps of so many, as kernels that work on several at once."""
    model = onnx.load(artifact.path)
    width = max(weight.dims[0] for weight in model.graph.initializer if len(weight.dims) > 1)
    model.metadata_props.add(key="latency_ms", value=str(float(-(-width // step))))
    onnx.save(model, artifact.path)
    return artifact


def probed(module: nn.Module, shape: tuple[int, ...], step: int) -> int:
    facts = inspect_module(module, Example((np.zeros((1, *shape), np.float32),)))
    return probe_multiple(
        facts,
        lambda artifact, _example, _folder: in_steps_of(step, artifact),
        OnnxRuntime(),
        FakeDevice(),
        load_profile("local"),
    )


@pytest.mark.parametrize(("step", "expected"), [(4, 4), (8, 8), (64, 16)])
def test_the_multiple_is_the_smallest_step_at_which_a_cut_turns_into_time(step: int, expected: int) -> None:
    layer, shape = (nn.Conv2d(3, 64, 3, padding=1), (3, 8, 8)) if step == 8 else (nn.Linear(32, 64), (32,))
    assert probed(nn.Sequential(layer), shape, step) == expected


def test_without_a_layer_that_could_be_narrowed_the_widest_step_is_safe() -> None:
    assert probed(nn.Sequential(nn.Conv2d(16, 16, 3, groups=16)), (16, 8, 8), 1) == 16
    assert probed(nn.Sequential(nn.Linear(32, 4)), (32,), 1) == 16


def test_widths_are_multiples_of_their_own_step_and_no_wider_one() -> None:
    assert [_width(64, multiple) for multiple in (4, 8, 16)] == [44, 40, 48]
    assert [_width(16, multiple) for multiple in (4, 8, 16)] == [12, 8, 0]
