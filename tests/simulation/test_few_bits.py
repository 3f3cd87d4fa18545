from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from autocompress.core.source import Array
from autocompress.errors import TechniqueError
from autocompress.simulation.few_bits import limit_bits
from autocompress.simulation.graph_module import GraphModule
from autocompress.testing.networks import onnx_model


def linear(weight: Array, scale: Array, zero: Array) -> GraphModule:
    """A linear layer with a quantized weight of shape (outputs, inputs)."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["weight"], axis=0),
        helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1),
    ]
    outputs, inputs = weight.shape
    stored = {"w": weight, "s": scale, "z": zero}
    return GraphModule(onnx_model(nodes, {"x": ("n", inputs)}, {"y": ("n", outputs)}, stored))


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 4]), st.booleans(), st.booleans())
def test_fewer_levels_fit_the_weights_better_than_one_scale_that_reaches_all(
    seed: int, bits: int, per_channel: bool, signed: bool
) -> None:
    generator = np.random.default_rng(seed)
    zero = np.array(0, np.int8) if signed else generator.integers(0, 256, ()).astype(np.uint8)
    limits = np.iinfo(zero.dtype)
    weight = generator.integers(limits.min, limits.max, (5, 12), endpoint=True).astype(zero.dtype)
    weight[2] = zero
    scale = generator.uniform(1e-6, 1e-2, 5 if per_channel else ()).astype(np.float32)
    module = linear(weight, scale, np.broadcast_to(zero, scale.shape).copy())
    quantizer = module.layers()[0].weight
    before = quantizer.value.detach().clone()
    limit_bits(module, bits)
    found = quantizer().detach()
    assert len(np.unique(quantizer.whole_numbers())) <= 2**bits
    assert quantizer.whole_numbers().dtype == zero.dtype
    assert torch.isfinite(found).all()
    # a channel of zeros
    assert (found[2] == 0).all()
    plain = before.abs().amax() / (2 ** (bits - 1) - 1)
    if signed:
        error = (found - before).square().sum()
        assert error <= 1.1 * ((before / plain).round() * plain - before).square().sum() + 1e-12


def test_zero_points_that_differ_by_channel_are_refused() -> None:
    module = linear(np.zeros((2, 3), np.uint8), np.ones(2, np.float32), np.array([1, 2], np.uint8))
    with pytest.raises(TechniqueError, match="same zero point"):
        limit_bits(module, 4)
