"""Learned rounding and bias correction: what they change, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Setting, Step
from autocompress.core.runtime import align
from autocompress.core.search_space import first_options
from autocompress.core.source import Array, whole
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.core.tools import Tools
from autocompress.devices.local import LocalDevice
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import compact, load_model, save_model
from autocompress.simulation.fake_quantization import Levels, StoredQuantizer
from autocompress.simulation.few_bits import limit_bits
from autocompress.simulation.graph_module import GraphModule
from autocompress.techniques import BiasCorrection, Equalization, Int8Static, LearnedRounding
from autocompress.techniques.learned_rounding import SoftRounding
from autocompress.testing.networks import Exports, labelled, labelled_source

FOUR: Mapping[str, Setting] = {"bits": 4, "steps": 40, "items": 256}
EIGHT: Mapping[str, Setting] = {"bits": 8, "steps": 40, "items": 256}


@pytest.fixture
def context(exports: Exports, tmp_path: Path) -> Context:
    """A context for the small convolutional network, with its float file."""
    calibration = whole("train", labelled_source("cnn", 128))
    return Context(None, None, calibration, tmp_path, unquantized=exports(OnnxRuntime(), "cnn").artifact)


@pytest.fixture
def quantized(context: Context) -> Artifact:
    """The small convolutional network in static int8."""
    assert context.unquantized is not None
    chosen = first_options(Int8Static.choices)
    return Int8Static().apply(context.unquantized, chosen, context)


def answers(artifact: Artifact) -> Array:
    feed = align(labelled("cnn", 256, seed=1)[0], artifact.inputs)
    return OnnxRuntime().load(artifact, 1, {}).run(feed)[0]


def error(artifact: Artifact, context: Context) -> float:
    """The mean squared error of the outputs to the float file's, on other items than those of calibration."""
    assert context.unquantized is not None
    return float(np.square(answers(artifact) - answers(context.unquantized)).mean())


def test_four_bits_learned_are_closer_than_four_bits_rounded_to_the_nearest(
    context: Context, quantized: Artifact
) -> None:
    learned = LearnedRounding().apply(quantized, FOUR, context)
    model = load_model(quantized.path)
    module = GraphModule(model)
    limit_bits(module, 4)
    nearest = save_model(compact(module.write_to(model)), context.folder / "nearest.onnx")
    assert error(learned, context) < error(nearest, context)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(learned.path).graph.initializer}
    weights = [array for array in stored.values() if array.dtype == np.int8 and array.ndim > 1]
    assert len(weights) == 4
    assert all(array.min() >= -8 and array.max() <= 7 for array in weights)


def test_eight_bits_learned_differ_by_a_step_at_most(context: Context, quantized: Artifact) -> None:
    told: list[tuple[int, int, float]] = []
    told_by = replace(context, on_step=lambda *step: told.append(step))
    learned = LearnedRounding().apply(quantized, EIGHT, told_by)
    assert error(learned, context) < error(quantized, context)
    found, before = GraphModule(load_model(learned.path)), GraphModule(load_model(quantized.path))
    gaps = [
        np.abs(one.weight.stored.astype(int) - other.weight.stored)
        for one, other in zip(found.layers(), before.layers(), strict=True)
    ]
    assert max(int(gap.max()) for gap in gaps) == 1
    # a convolution, a residual block, the last layer
    assert [(step, steps) for step, steps, _ in told] == [(40, 120), (80, 120), (120, 120)]
    assert told[-1][2] == 0


def test_weights_that_were_changed_before_quantization_can_be_learned_in_four_bits_alone(
    context: Context, quantized: Artifact
) -> None:
    assert context.unquantized is not None
    model = load_model(context.unquantized.path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(1.3 * numpy_helper.to_array(tensor), tensor.name))
    changed = replace(context, unquantized=save_model(model, context.folder / "changed.onnx"))
    with pytest.raises(TechniqueError, match="no quantized layer whose weights are those of the float file"):
        LearnedRounding().apply(quantized, EIGHT, changed)
    learned = LearnedRounding().apply(quantized, FOUR, changed)
    assert error(learned, context) < 0.05 * float(np.square(answers(quantized)).mean())


class Recording(LearnedRounding):
    """Learned rounding that keeps the float file which it was given."""

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        self.given = context.unquantized
        return super().apply(artifact, settings, context)


def test_after_a_preparation_the_prepared_file_is_what_was_quantized(context: Context) -> None:
    recording = Recording()
    techniques = [Equalization(), Int8Static(), recording]
    settings = [{"method": "cross_layer", "alpha": 0.5}, first_options(Int8Static.choices), EIGHT]
    steps = [Step(one.name, one.stage, given) for one, given in zip(techniques, settings, strict=True)]
    assert context.unquantized is not None
    Tools(OnnxRuntime(), LocalDevice(OnnxRuntime()), techniques).finished(context.unquantized, steps, context)
    prepared = recording.given
    assert prepared is not None
    assert prepared.hash != context.unquantized.hash
    assert error(prepared, context) < 1e-6, "equalization leaves the function as it is"


def test_the_mean_error_of_each_output_is_taken_out(context: Context, quantized: Artifact) -> None:
    model = load_model(quantized.path)
    module = GraphModule(model)
    limit_bits(module, 4)
    coarse = save_model(compact(module.write_to(model)), context.folder / "coarse.onnx")
    corrected = BiasCorrection().apply(coarse, {"items": 256}, context)
    assert context.unquantized is not None
    wanted = answers(context.unquantized).mean(0)
    before, after = (np.abs(answers(one).mean(0) - wanted).max() for one in (coarse, corrected))
    assert after < 0.5 * before
    assert error(corrected, context) < error(coarse, context)


@pytest.mark.parametrize("technique", [LearnedRounding, BiasCorrection])
def test_what_it_lacks_is_said(technique: type[ArtifactTechnique], context: Context, quantized: Artifact) -> None:
    chosen = first_options(technique.choices)
    with pytest.raises(TechniqueError, match="needs calibration data"):
        technique().apply(quantized, chosen, replace(context, calibration=None))
    with pytest.raises(TechniqueError, match="needs the float file"):
        technique().apply(quantized, chosen, replace(context, unquantized=None))
    assert context.unquantized is not None
    with pytest.raises(TechniqueError, match="finds no quantized layer"):
        technique().apply(context.unquantized, chosen, context)


def test_soft_rounding_begins_with_the_float_weights_and_ends_in_whole_steps() -> None:
    weight = StoredQuantizer(torch.tensor(0.5), torch.tensor(0.0), Levels(-8, 7), np.zeros((1, 4), np.int8))
    value = torch.tensor([[0.1, -0.3, 1.2, 0.74]])
    with torch.no_grad():
        weight.value.copy_(value)
    soft = SoftRounding(weight)
    torch.testing.assert_close(soft(value / 0.5) * 0.5, value, rtol=1e-4, atol=1e-4)
    assert soft.cost(2.0).item() > 0
    soft.settle(weight)
    assert weight.value.tolist() == [[0.0, -0.5, 1.0, 0.5]]
