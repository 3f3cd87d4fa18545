"""Dynamic int8 in the simulation: the numbers of the runtime, and weights that are learned and written back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Setting
from autocompress.core.runtime import Example, align
from autocompress.core.search_space import first_options
from autocompress.core.source import Array
from autocompress.core.technique import Context
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import compact, load_model, save_model
from autocompress.simulation.graph_module import GraphModule
from autocompress.techniques import Int8Dynamic
from autocompress.testing.networks import Exports, labelled

Files = Callable[[str], Artifact]
PER_TENSOR: dict[str, Setting] = {"weight": "uint8", "per_channel": False}


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Files:
    """A small network in dynamic int8, made once; `NAME, uint8` has one scale for each weight."""
    made: dict[str, Artifact] = {}

    def file_of(name: str) -> Artifact:
        if name not in made:
            model = name.partition(",")[0]
            chosen = first_options(Int8Dynamic.choices) | (PER_TENSOR if "," in name else {})
            context = Context(None, Example({}), None, tmp_path_factory.mktemp("dynamic"))
            made[name] = Int8Dynamic().apply(exports(OnnxRuntime(), model).artifact, chosen, context)
        return made[name]

    return file_of


def feed_of(artifact: Artifact, name: str) -> dict[str, Array]:
    return align(labelled(name.partition(",")[0], 64, seed=1)[0], artifact.inputs)


def simulated(module: GraphModule, feed: dict[str, Array]) -> Array:
    with torch.no_grad():
        (found,) = module(**{name: torch.from_numpy(array) for name, array in feed.items()}).values()
    return found.numpy()


def in_runtime(artifact: Artifact, feed: dict[str, Array]) -> Array:
    return OnnxRuntime().load(artifact, 1, {}).run(feed)[0]


NETWORKS = pytest.mark.parametrize("name", ["mlp", "mlp, uint8", "transformer", "encoder", "lstm", "lstm, uint8"])


@NETWORKS
def test_a_file_gives_the_answers_of_the_runtime(dynamic: Files, name: str) -> None:
    artifact = dynamic(name)
    feed, module = feed_of(artifact, name), GraphModule(load_model(artifact.path))
    kinds = [node.op_type for node in load_model(artifact.path).graph.node]
    # an LSTM has a weight for its inputs and one for its states
    assert len(module.layers()) == kinds.count("MatMulInteger") + 2 * kinds.count("DynamicQuantizeLSTM") > 0
    wanted, found = in_runtime(artifact, feed), simulated(module, feed)
    assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)


@NETWORKS
def test_what_was_not_trained_is_written_back_byte_for_byte(dynamic: Files, name: str) -> None:
    model = load_model(dynamic(name).path)
    written = GraphModule(model).write_to(model)
    assert written.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@NETWORKS
def test_a_file_computes_what_was_learned(dynamic: Files, name: str, tmp_path: Path) -> None:
    artifact = dynamic(name)
    feed, model = feed_of(artifact, name), load_model(artifact.path)
    module = GraphModule(model)
    module.learn_scales()
    before = simulated(module, feed)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    (outputs,) = module(**{key: torch.from_numpy(array) for key, array in feed.items()}).values()
    (outputs - torch.from_numpy(before).roll(1, 0)).square().mean().backward()
    weights = [layer.weight for layer in module.layers()]
    assert all(weight.value.grad is not None and weight.value.grad.abs().max() > 0 for weight in weights)
    assert all(weight.scale.grad is not None for weight in weights)
    optimizer.step()
    with torch.no_grad():
        for weight in weights:
            # some whole numbers change
            weight.value.mul_(torch.linspace(0.5, 1.0, weight.value.shape[-1]))
    after = simulated(module, feed)
    made = save_model(compact(module.write_to(model)), tmp_path / "made.onnx")
    found = in_runtime(made, feed)
    assert np.linalg.norm(after - before) > 0.05 * np.linalg.norm(before)
    assert np.linalg.norm(found - after) < 0.01 * np.linalg.norm(after)
    assert made.size_bytes <= 1.05 * artifact.size_bytes


def test_without_rounding_the_weights_are_the_float_parameters(dynamic: Files) -> None:
    artifact = dynamic("mlp")
    module, feed = GraphModule(load_model(artifact.path)), feed_of(artifact, "mlp")
    before = simulated(module, feed)
    module.enable_quantization(weights=False)
    # they were read from the file, where they are rounded
    np.testing.assert_allclose(simulated(module, feed), before, rtol=1e-4, atol=1e-5)


def graph_of(nodes: list[onnx.NodeProto], *outputs: tuple[str, int, list[str]]) -> onnx.ModelProto:
    """A graph of one input `x` of floats."""
    values = [helper.make_tensor_value_info(*one) for one in (("x", TensorProto.FLOAT, ["n", "m"]), *outputs)]
    graph = helper.make_graph(nodes, "one", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


RANGES = graph_of(
    [helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])],
    ("y", TensorProto.UINT8, ["n", "m"]),
    ("scale", TensorProto.FLOAT, []),
    ("zero", TensorProto.UINT8, []),
)
IN_RUNTIME = onnxruntime.InferenceSession(RANGES.SerializeToString(), providers=["CPUExecutionProvider"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=40),
    st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_ranges_of_a_call_are_those_of_the_runtime(values: list[float], factor: float) -> None:
    x = np.array([values], dtype=np.float32) * np.float32(factor)
    whole, scale, zero = IN_RUNTIME.run(None, {"x": x})
    found = {name: one.numpy() for name, one in GraphModule(RANGES)(x=torch.from_numpy(x)).items()}
    np.testing.assert_allclose(found["scale"], scale, rtol=1e-6)
    # what lies in the middle between two levels may go to either
    assert np.abs(found["y"] - whole).max() <= 1
    assert abs(float(found["zero"]) - float(zero)) <= 1


def test_a_weight_that_is_turned_in_the_graph_is_computed_but_not_learned() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMulInteger", ["q", "turned", "z"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "s"], ["y"]),
    ]
    model = graph_of(nodes, ("y", TensorProto.FLOAT, ["n", "k"]))
    model.graph.initializer.append(numpy_helper.from_array(np.arange(12, dtype=np.int8).reshape(4, 3), "w"))
    module, x = GraphModule(model), np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    assert module.layers() == []
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        module(x=torch.from_numpy(x))["y"].numpy(), session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-5
    )
