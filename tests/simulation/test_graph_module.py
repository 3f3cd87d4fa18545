from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from autocompress.core.runtime import align
from autocompress.core.source import Array
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.fake_quantization import ActivationQuantizer, BiasQuantizer, Levels, StoredQuantizer
from autocompress.simulation.graph_module import GraphModule
from autocompress.testing.networks import Exports, labelled, onnx_model

ITEMS = 256
Quantized = Callable[[str], Path]


def feed_of(path: Path, name: str) -> dict[str, Array]:
    return align(labelled(name.partition(",")[0], ITEMS, seed=1)[0], OnnxRuntime().read(path).inputs)


def outputs(module: GraphModule, feed: dict[str, Array]) -> list[Array]:
    with torch.no_grad():
        return [value.numpy() for value in module(**{name: torch.from_numpy(a) for name, a in feed.items()}).values()]


def in_runtime(path: Path, feed: dict[str, Array]) -> Array:
    return OnnxRuntime().load(OnnxRuntime().read(path), 1, {}).run(feed)[0]


@pytest.mark.parametrize("name", ["cnn", "cnn, int8", "mlp", "transformer", "lstm"])
def test_a_quantized_file_gives_the_answers_of_the_runtime(quantized: Quantized, name: str) -> None:
    feed = feed_of(quantized(name), name)
    wanted, (found,) = in_runtime(quantized(name), feed), outputs(GraphModule(load_model(quantized(name))), feed)
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.995
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", ["cnn", "mlp", "transformer", "lstm"])
def test_a_float_file_gives_the_numbers_of_the_runtime(exports: Exports, name: str) -> None:
    path = exports(OnnxRuntime(), name).artifact.path
    feed = feed_of(path, name)
    wanted, (found,) = in_runtime(path, feed), outputs(GraphModule(load_model(path)), feed)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "cnn, int8", "mlp", "transformer", "lstm"])
def test_what_was_not_trained_is_written_back_byte_for_byte(quantized: Quantized, name: str) -> None:
    model = load_model(quantized(name))
    written = GraphModule(model).write_to(model)
    assert written.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", ["cnn", "mlp", "transformer"])
def test_what_was_trained_runs_in_the_runtime_as_it_was_trained(
    quantized: Quantized, name: str, tmp_path: Path
) -> None:
    model = load_model(quantized(name))
    module = GraphModule(model)
    module.learn_scales()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    feed = feed_of(quantized(name), name)
    tensors = {key: torch.from_numpy(array) for key, array in feed.items()}
    scales = list(dict.fromkeys(quantizer.scale for quantizer in module.quantizers))
    values = [one for name, one in module.named_parameters() if not name.endswith(".scale")]
    optimizer = torch.optim.Adam([{"params": values}, {"params": scales, "lr": 1e-5}], 1e-3)
    for _ in range(5):
        (logits,) = module(**tensors).values()
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labelled(name, ITEMS, seed=1)[1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = module.state_dict()
    assert all(not torch.equal(after[key], before[key]) for key in after if key.endswith(".value"))
    path = tmp_path / "trained.onnx"
    written = module.write_to(model)
    onnx.save(written, path)
    onnx.checker.check_model(written, full_check=True)
    wanted, (found,) = in_runtime(path, feed), outputs(module, feed)
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.995
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)
    # and the file says all that the module knows
    (again,) = outputs(GraphModule(written), feed)
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-4 * np.abs(found).max())


def test_without_rounding_it_computes_what_the_float_file_computes(exports: Exports, quantized: Quantized) -> None:
    module = GraphModule(load_model(quantized("cnn")))
    feed = feed_of(quantized("cnn"), "cnn")
    wanted = in_runtime(exports(OnnxRuntime(), "cnn").artifact.path, feed)
    module.enable_quantization(weights=False, activations=False)
    (plain,) = outputs(module, feed)
    module.enable_quantization()
    (rounded,) = outputs(module, feed)
    # what is left is the rounding of the weights, which are read from the file
    assert np.linalg.norm(plain - wanted) < 0.03 * np.linalg.norm(wanted)
    assert np.linalg.norm(plain - wanted) < np.linalg.norm(rounded - wanted)


def test_the_layers_are_listed_with_their_weights_and_tensors(quantized: Quantized) -> None:
    model = load_model(quantized("cnn"))
    module = GraphModule(model)
    layers = module.layers()
    assert [layer.operator for layer in layers] == ["Conv", "Conv", "Conv", "Gemm"]
    assert [tuple(layer.weight.value.shape) for layer in layers] == [
        (16, 3, 3, 3),
        (16, 16, 3, 3),
        (16, 16, 3, 3),
        (5, 16),
    ]
    assert all(isinstance(layer.bias, BiasQuantizer) for layer in layers)
    assert [model.graph.node[layer.place].output[0] for layer in layers] == [layer.output for layer in layers]


def test_a_part_of_the_graph_is_computed_from_the_tensors_before_it(quantized: Quantized) -> None:
    module = GraphModule(load_model(quantized("cnn")))
    first, second = module.layers()[:2]
    image = {"input": torch.from_numpy(labelled("cnn", 4)[0][0])}
    both = module.compute(image, (second.input, second.output))
    alone = module.compute({second.input: both[second.input]}, (second.output,))
    assert torch.equal(alone[second.output], both[second.output])
    with pytest.raises(TechniqueError, match="input 'input' of the graph is not given"):
        module.compute({}, (first.output,))


def test_a_copy_learns_without_the_original(quantized: Quantized) -> None:
    module = GraphModule(load_model(quantized("mlp")))
    feed = feed_of(quantized("mlp"), "mlp")
    (before,) = outputs(module, feed)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    (after,) = outputs(module, feed)
    assert np.array_equal(before, after)
    assert not np.allclose(outputs(other, feed)[0], before)


# fake quantization


def test_a_scale_has_the_gradient_of_esser() -> None:
    quantizer = ActivationQuantizer(torch.tensor(0.5), torch.tensor(0.0), Levels(-4, 3))
    quantizer.scale.requires_grad_(True)
    x = torch.tensor([[0.1, -0.9, 1.2, 5.0, -7.0]], requires_grad=True)
    quantizer.dequantize(quantizer.quantize(x)).sum().backward()
    inside = x.detach() / 0.5
    expected = (inside.round() - inside)[0, :3].sum() + 3 - 4
    # of the five elements of one item, and the largest level
    assert quantizer.scale.grad is not None
    assert quantizer.scale.grad.item() == pytest.approx(expected.item() / math.sqrt(5 * 3), rel=1e-5)
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 1, 1, 0, 0]]


def test_halves_are_rounded_to_even() -> None:
    quantizer = ActivationQuantizer(torch.tensor(1.0), torch.tensor(3.0), Levels(0, 255))
    x = torch.tensor([0.5, 1.5, -0.5, 2.5, -9.0, 300.0])
    assert quantizer.dequantize(quantizer.quantize(x)).tolist() == [0, 2, 0, 2, -3, 252]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5), st.floats(1e-30, 1e3))
@settings(max_examples=60, deadline=None)
def test_whole_numbers_that_were_read_are_written_again(values: list[int], scale: float) -> None:
    stored = np.array(values, dtype=np.int32)
    bias = BiasQuantizer(torch.tensor(scale), torch.tensor(0.0), Levels(-(2.0**31), 2.0**31 - 1), stored)
    assert np.array_equal(bias.whole_numbers(), stored)


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=9), st.floats(1e-30, 1e3), st.integers(-20, 20))
@settings(max_examples=60, deadline=None)
def test_int8_weights_are_exact_without_a_memory_of_what_was_read(values: list[int], scale: float, zero: int) -> None:
    stored = np.array(values, dtype=np.int8)
    weight = StoredQuantizer(torch.tensor(scale), torch.tensor(float(zero)), Levels(-128, 127), stored)
    with torch.no_grad():
        weight.value[-1] += 0.4 * scale
    assert np.array_equal(weight.whole_numbers(), stored)


def test_a_bias_follows_the_scales_of_its_input_and_weight() -> None:
    weight = StoredQuantizer(torch.tensor([0.1, 0.2]), torch.zeros(2), Levels(-128, 127, 0), np.ones((2, 1), np.int8))
    given = ActivationQuantizer(torch.tensor(0.5), torch.tensor(0.0), Levels(0, 255))
    scale = torch.tensor([0.05, 0.1])
    bias = BiasQuantizer(scale, torch.zeros(2), Levels(-(2.0**31), 2.0**31 - 1, 0), np.array([10, 20], np.int32))
    bias.follow(given, weight)
    assert torch.equal(bias.current_scale(), scale)
    with torch.no_grad():
        given.scale.mul_(2)
        weight.scale[1] *= 3
    assert torch.allclose(bias.current_scale(), torch.tensor([0.1, 0.6]))
    # the value that it stands for stays
    assert bias.whole_numbers().tolist() == [5, 3]


# what is written


def two_biases(shared: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Add", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "first" if shared else "second"], ["y"]),
    ]
    stored = {"first": np.ones(3, np.float32)} | ({} if shared else {"second": np.zeros(3, np.float32)})
    return onnx_model(nodes, {"x": ("batch", 3)}, {"y": ("batch", 3)}, stored)


def test_a_shared_float_tensor_stays_shared() -> None:
    model = two_biases(shared=True)
    module = GraphModule(model)
    (parameter,) = module.parameters()
    with torch.no_grad():
        parameter.add_(1)
    (tensor,) = module.write_to(model).graph.initializer
    assert numpy_helper.to_array(tensor).tolist() == [2, 2, 2]


def test_quantizers_that_shared_a_scale_get_scales_of_their_own() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "scale", "zero"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "scale", "zero"], ["y"]),
    ]
    stored = {"scale": np.array(0.5, np.float32), "zero": np.array(0, np.uint8)}
    model = onnx_model(nodes, {"x": ("batch", 3)}, {"y": ("batch", 3)}, stored)
    module = GraphModule(model)
    with torch.no_grad():
        module.activation_quantizers()[1].scale.mul_(2)
    written = module.write_to(model)
    onnx.checker.check_model(written, full_check=True)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert [float(values[node.input[1]]) for node in written.graph.node] == [0.5, 0.5, 1.0, 1.0]
    assert not any(character.isdigit() for name in values for character in name)


def test_scales_that_are_computed_are_refused() -> None:
    nodes = [
        helper.make_node("Abs", ["scale"], ["computed"]),
        helper.make_node("QuantizeLinear", ["x", "computed", "zero"], ["a"], name="stem"),
        helper.make_node("DequantizeLinear", ["a", "computed", "zero"], ["y"]),
    ]
    stored = {"scale": np.array(0.5, np.float32), "zero": np.array(0, np.uint8)}
    model = onnx_model(nodes, {"x": ("batch", 3)}, {"y": ("batch", 3)}, stored)
    with pytest.raises(TechniqueError, match="scales that are computed") as caught:
        GraphModule(model)
    assert caught.value.where == "stem"
