"""torch's own encoders: padded places are computed, masks are applied as they are given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from unusual_networks import Encoder, padded, tokens

from autocompress.core.runtime import Example
from autocompress.data.copies import as_compressed
from autocompress.data.preparation import prepared
from autocompress.data.vision import prepare_torchvision
from autocompress.runtimes import OnnxRuntime


def test_an_encoder_that_drops_padding_is_compressed_without_that(tmp_path: Path) -> None:
    module, example = Encoder(layers=1).eval(), Example((padded().numpy(),))
    copied, said = as_compressed(module, example)
    assert [one for one in said if "nn.TransformerEncoder (body) computes padded places like all others" in one]
    assert module.body.use_nested_tensor
    assert copied.head.weight is module.head.weight  # type: ignore[union-attr]
    with torch.no_grad():
        real = padded() != 0
        torch.testing.assert_close(copied(padded())[real], module(padded())[real])
    OnnxRuntime().export(copied, example, tmp_path / "model.onnx")


def test_an_encoder_without_a_padding_mask_is_left_alone() -> None:
    module = Encoder("none", layers=1).eval()
    assert as_compressed(module, Example((tokens().numpy(),))) == (module, ())


@pytest.mark.parametrize("mask", ["float", "bool"])
def test_masks_of_values_are_exported(mask: str, tmp_path: Path) -> None:
    module = Encoder(mask, layers=1).eval()
    artifact = OnnxRuntime().export(module, Example((tokens().numpy(),)), tmp_path / "model.onnx")
    assert not artifact.remarks


def test_layers_with_transposed_weights_become_linear_ones() -> None:
    prepare_torchvision()
    from transformers.pytorch_utils import Conv1D

    module = nn.Sequential(Conv1D(6, 4), nn.ReLU()).eval()
    copied, said = prepared(module)
    assert isinstance(copied[0], nn.Linear)  # type: ignore[index]
    assert isinstance(module[0], Conv1D)
    assert said == ("layers with transposed weights, Conv1D (0), are compressed as nn.Linear",)
    features = torch.randn(3, 4)
    torch.testing.assert_close(copied(features), module(features))
