"""Weights of a file's layers, the second moments of their inputs, and clusters of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.runtime import Example
from autocompress.core.search_space import first_options
from autocompress.core.source import ArraySource, Split, whole
from autocompress.core.technique import Context
from autocompress.packing.clustering import Clusters, clustered
from autocompress.packing.layer_weights import LayerWeight, layer_weights
from autocompress.packing.rounded_weights import as_whole_numbers
from autocompress.packing.second_moments import second_moments
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import compact, load_model, save_model
from autocompress.runtimes.palette_storage import store
from autocompress.techniques import Int8Static


class Convolutions(nn.Module):
    """Convolutions with a stride, dilation, groups and depthwise, and a linear layer; takes (n, 8, 12, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4),
            nn.ReLU(),
            nn.Conv2d(16, 32, (1, 3), padding=(0, 1)),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, 12)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(image).mean((2, 3)))


@dataclass(frozen=True, eq=False)
class Files:
    """A module, its float file, its file in static int8, and the items that it was calibrated on."""

    module: Convolutions
    unquantized: Artifact
    quantized: Artifact
    split: Split


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("packing")
    torch.manual_seed(0)
    module = Convolutions().eval()
    # neighbouring places and channels hang together, as in images
    noise = torch.randn(48, 8, 12, 12)
    images = (noise.cumsum(2) + noise.cumsum(1)).numpy().astype(np.float32) / 4
    example = Example((images[:2],))
    split = whole("train", ArraySource((images,), np.zeros(48, dtype=np.int64)))
    unquantized = OnnxRuntime().export(module, example, folder / "float.onnx")
    context = Context(None, example, split, folder)
    quantized = Int8Static().apply(unquantized, {**first_options(Int8Static.choices), "samples": 64}, context)
    return Files(module, unquantized, quantized, split)


def layers_in(files: Files, *, quantized: bool = True) -> list[LayerWeight]:
    artifact = files.quantized if quantized else files.unquantized
    return layer_weights(load_model(artifact.path).graph)


@pytest.mark.parametrize("quantized", [True, False])
def test_every_weight_is_found_with_its_groups_and_input(files: Files, *, quantized: bool) -> None:
    found = layers_in(files, quantized=quantized)
    assert [layer.node.op_type for layer in found] == ["Conv"] * 4 + ["Gemm"]
    assert [layer.groups for layer in found] == [1, 4, 1, 32, 1]
    assert all(layer.has_matrix and layer.input for layer in found)
    assert all(layer.is_whole is quantized for layer in found)


def test_matrices_go_back_to_tensors(files: Files) -> None:
    for layer in layers_in(files):
        values = np.random.default_rng(0).standard_normal(layer.shape)
        matrix = layer.matrix(values)
        assert matrix.shape[0] == layer.groups
        np.testing.assert_array_equal(layer.tensor_of(matrix), values)


def test_moments_are_those_of_what_each_column_is_multiplied_with(files: Files) -> None:
    """The mean square of a layer's output, without its bias, follows from them."""
    model = load_model(files.unquantized.path)
    found = second_moments(files.unquantized, layer_weights(model.graph), files.split)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    images = torch.from_numpy(files.split.source.read(range(48))[0][0])
    for layer, place in zip(layer_weights(model.graph), (0, 2, 4, 6), strict=False):
        convolution = files.module.layers[place]
        with torch.no_grad():
            output = convolution(files.module.layers[:place](images)) - convolution.bias[:, None, None]
        matrix = torch.tensor(layer.matrix(tensors[layer.tensor]))
        squares = torch.einsum("grc,gcd,grd->gr", matrix, found[layer.tensor], matrix).reshape(-1)
        np.testing.assert_allclose(squares, output.square().mean((0, 2, 3)), rtol=0.02)


@pytest.mark.parametrize(("entries", "groups"), [(2, 1), (4, 1), (4, 4), (7, 2), (16, 1)])
def test_a_palette_has_no_more_values_than_it_was_asked_for(files: Files, entries: int, groups: int) -> None:
    model = load_model(files.quantized.path)
    layers, whole = as_whole_numbers(model, layer_weights(model.graph))
    moments = second_moments(files.quantized, layers, files.split)
    for layer in layers:
        clusters = Clusters(entries, groups)
        made = clustered(layer, whole[layer.tensor], moments[layer.tensor], clusters)
        assert made.entries.shape[1] <= entries
        assert len(made.entries) == clusters.groups_of(layer)
        assert made.values().dtype == np.int8
        assert made.values().shape == layer.shape


def error(files: Files, folder: Path, clusters: Clusters, *, passed_on: bool) -> float:
    """The relative error of the packed file's outputs beside those of the quantized file."""
    model = load_model(files.quantized.path)
    layers, whole = as_whole_numbers(model, layer_weights(model.graph))
    moments = second_moments(files.quantized, layers, files.split) if passed_on else {}
    palettes = {one.tensor: clustered(one, whole[one.tensor], moments.get(one.tensor), clusters) for one in layers}
    made = save_model(compact(store(model, palettes)), folder / f"{passed_on}{clusters.passes}.onnx")
    feed = {made.inputs[0].name: files.split.source.read(range(48))[0][0]}
    found, wanted = (OnnxRuntime().load(one, 1, {}).run(feed)[0] for one in (made, files.quantized))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_outputs_are_closer_with_errors_passed_on_and_values_found_anew(files: Files, tmp_path: Path) -> None:
    plain = error(files, tmp_path, Clusters(4), passed_on=False)
    once = error(files, tmp_path, Clusters(4, passes=1), passed_on=True)
    often = error(files, tmp_path, Clusters(4, passes=4), passed_on=True)
    assert once < 0.8 * plain
    assert often < 1.05 * once


def test_weights_in_float_get_whole_numbers_with_a_scale_for_each_row(files: Files, tmp_path: Path) -> None:
    model = load_model(files.unquantized.path)
    tensors = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    layers, whole = as_whole_numbers(model, layer_weights(model.graph))
    for layer in layers:
        steps = layer.scales()
        assert np.abs(whole[layer.tensor] * steps - tensors[layer.tensor]).max() <= 0.51 * steps.max()
        assert len(np.unique(layer.scale)) > 1
    # the file computes with the rounded weights meanwhile
    made = save_model(compact(model), tmp_path / "whole.onnx")
    feed = {made.inputs[0].name: files.split.source.read(range(48))[0][0]}
    found, wanted = (OnnxRuntime().load(one, 1, {}).run(feed)[0] for one in (made, files.unquantized))
    assert np.linalg.norm(found - wanted) < 0.03 * np.linalg.norm(wanted)
