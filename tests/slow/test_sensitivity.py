"""Sensitivity of real networks: what breaks int8 is found, and the sets that are proposed win it back."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from autocompress.api import sensitivity

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("depth", "convolutions"), [(20, 19), (56, 55)])
def test_a_block_with_a_spread_between_channels_is_found_and_two_layers_in_float_mend_it(
    networks: ModuleType, depth: int, convolutions: int
) -> None:
    model = networks.cifar_resnet(depth)
    block = model.layer2[1]
    spread = torch.exp(2 * torch.randn(len(block.bn1.bias), generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        # the network computes the same
        block.bn1.weight *= spread
        block.bn1.bias *= spread
        block.conv2.weight /= spread[None, :, None, None]
    found = sensitivity(model, "local", networks.cifar10(), settings={"per_channel": False, "samples": 64})
    assert sum(layer.operator == "Conv" for layer in found.layers) == convolutions
    worst = min(found.layers, key=lambda layer: layer.divergence)
    assert worst.name == "layer2.1.conv2"
    assert found.mixed
    pair = next(mixed for mixed in found.mixed if {"layer2.1.conv1", "layer2.1.conv2"} <= set(mixed.layers))
    assert pair.divergence < 0.1 * found.divergence
    assert pair.size is not None
    assert pair.size < 0.5
    assert not found.left_out


def test_within_a_time_limit_what_was_left_out_is_said(networks: ModuleType) -> None:
    found = sensitivity(networks.cifar_resnet(56), "local", networks.cifar10(), max_time=10.0)
    assert found.left_out
    assert not {layer.name for layer in found.layers} & set(found.left_out)
