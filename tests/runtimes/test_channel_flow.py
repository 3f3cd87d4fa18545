"""Which layers can exchange scales, and that an exchange leaves the function as it is: on handmade graphs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.helper import make_node as node

from autocompress.core.artifact import Artifact
from autocompress.core.source import Array
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.channel_flow import Passage, largest_by_channel, passages
from autocompress.runtimes.graph_weights import StoredTensors
from autocompress.runtimes.onnx_file import save_model
from autocompress.runtimes.onnx_shapes import shapes_of
from autocompress.testing.networks import onnx_model

DRAWS = np.random.default_rng(0)
IMAGE = {"x": DRAWS.standard_normal((2, 3, 8, 8)).astype(np.float32)}
TOKENS = {"x": DRAWS.standard_normal((2, 5, 8)).astype(np.float32)}
OUT = {"y": ("batch", 4)}


def weights(**shapes: Sequence[int]) -> dict[str, Array]:
    """Random weights of these shapes, away from zero."""
    return {
        name: (DRAWS.uniform(0.2, 1.0, shape) * DRAWS.choice([-1, 1], shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def conv(given: str, weight: str, to: str, **attributes: Any) -> onnx.NodeProto:
    return node("Conv", [given, weight, f"{weight}b"], [to], name=weight, pads=[1, 1, 1, 1], **attributes)


def images(nodes: Sequence[onnx.NodeProto], stored: Mapping[str, Array], rank: int = 4) -> onnx.ModelProto:
    shape = ("batch", 4, 8, 8)[:rank]
    return onnx_model(nodes, {"x": ("batch", 3, 8, 8)}, {"y": shape}, stored)


FIRST = weights(a=(6, 3, 3, 3), ab=(6,))
LAST = weights(b=(4, 6, 3, 3), bb=(4,))
HEAD = weights(h=(6, 4))


def between(*nodes: onnx.NodeProto, **more: Array) -> onnx.ModelProto:
    """Two convolutions with nodes between them that lead from `p` to `q`."""
    return images([conv("x", "a", "p"), *nodes, conv("q", "b", "y")], {**FIRST, **LAST, **more})


def pooled(*nodes: onnx.NodeProto, **more: Array) -> onnx.ModelProto:
    """A convolution and a linear layer with nodes between them that lead from `p` to `q`."""
    last = node("Gemm", ["q", "h"], ["y"], name="h")
    return images([conv("x", "a", "p"), *nodes, last], {**FIRST, **HEAD, **more}, rank=2)


def tokens(*nodes: onnx.NodeProto, **more: Array) -> onnx.ModelProto:
    return onnx_model(nodes, {"x": ("batch", "n", 8)}, {"y": ("batch", "n", 4)}, more)


def linear(given: str, weight: str, to: str) -> list[onnx.NodeProto]:
    return [node("MatMul", [given, weight], [f"{to}m"], name=weight), node("Add", [f"{to}m", f"{weight}b"], [to])]


def attention() -> onnx.ModelProto:
    """A norm with one reader of its own for values, and values that pass heads of attention on to the output layer."""
    split = [node("Reshape", ["v", "heads"], ["vs"]), node("Transpose", ["vs"], ["vt"], perm=[0, 2, 1, 3])]
    merge = [node("Transpose", ["mixed"], ["mt"], perm=[0, 2, 1, 3]), node("Reshape", ["mt", "merged"], ["o"])]
    nodes = [
        node("LayerNormalization", ["x", "g", "c"], ["n"], name="norm"),
        *linear("n", "value", "v"),
        *linear("n", "query", "qq"),
        node("Softmax", ["qq"], ["weights"]),
        node("Transpose", ["weights"], ["wt"], perm=[0, 2, 1]),
        node("MatMul", ["weights", "wt"], ["square"]),
        node("Unsqueeze", ["square", "one"], ["four"]),
        *split,
        node("MatMul", ["four", "vt"], ["mixed"]),
        *merge,
        *linear("o", "output", "y"),
    ]
    stored = weights(g=(8,), c=(8,), value=(8, 6), valueb=(6,), query=(8, 3), queryb=(3,), output=(6, 4), outputb=(4,))
    return tokens(*nodes, **stored, heads=np.array([0, 0, 2, 3]), merged=np.array([0, 0, 6]), one=np.array([1]))


RELU = node("Relu", ["p"], ["q"])
MOVABLE: dict[str, tuple[onnx.ModelProto, list[tuple[str, list[str]]]]] = {
    "relu": (between(RELU), [("a", ["b"])]),
    "depthwise": (
        images(
            [conv("x", "a", "p"), node("Relu", ["p"], ["q"]), conv("q", "d", "r", group=6), conv("r", "b", "y")],
            {**FIRST, **LAST, **weights(d=(6, 1, 3, 3), db=(6,))},
        ),
        [("d", ["b"]), ("a", ["d"])],
    ),
    "groups": (
        images(
            [conv("x", "a", "p"), conv("p", "d", "q", group=2), conv("q", "b", "y")],
            {**FIRST, **LAST, **weights(d=(6, 3, 3, 3), db=(6,))},
        ),
        [("d", ["b"]), ("a", ["d"])],
    ),
    "relu with a bound": (
        between(node("Clip", ["p", "low", "high"], ["q"]), low=np.float32(0), high=np.float32(6)),
        [("a", ["b"])],
    ),
    "padded with zeros": (
        between(node("Pad", ["p", "pads"], ["q"]), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1])),
        [("a", ["b"])],
    ),
    "two readers": (
        images(
            [conv("x", "a", "p"), conv("p", "b", "q"), conv("p", "c", "r"), node("Add", ["q", "r"], ["y"])],
            {**FIRST, **LAST, **weights(c=(4, 6, 3, 3), cb=(4,))},
        ),
        [("a", ["b", "c"])],
    ),
    "concatenated": (
        images(
            [conv("x", "a", "p"), conv("x", "e", "r"), node("Concat", ["p", "r"], ["q"], axis=1), conv("q", "b", "y")],
            {**FIRST, **weights(e=(2, 3, 3, 3), eb=(2,), b=(4, 8, 3, 3), bb=(4,))},
        ),
        [("e", ["b"]), ("a", ["b"])],
    ),
    "pooled and flattened": (
        pooled(node("GlobalAveragePool", ["p"], ["g"]), node("Flatten", ["g"], ["q"])),
        [("a", ["h"])],
    ),
    "mean over space": (pooled(node("ReduceMean", ["p", "s"], ["q"], keepdims=0), s=np.array([2, 3])), [("a", ["h"])]),
    "places flattened with channels": (
        images(
            [
                conv("x", "a", "p"),
                node("MaxPool", ["p"], ["m"], kernel_shape=[4, 4], strides=[4, 4]),
                node("Flatten", ["m"], ["q"]),
                node("Gemm", ["q", "w"], ["y"], name="w", transB=1),
            ],
            {**FIRST, **weights(w=(4, 24))},
            rank=2,
        ),
        [("a", ["w"])],
    ),
    "gated by what is read from it": (
        between(
            node("GlobalAveragePool", ["p"], ["g"]),
            conv("g", "s", "t"),
            node("Sigmoid", ["t"], ["u"]),
            node("ReduceMean", ["u", "axes"], ["gate"]),
            node("Mul", ["p", "gate"], ["q"]),
            **weights(s=(6, 6, 3, 3), sb=(6,)),
            axes=np.array([2, 3]),
        ),
        [("a", ["s", "b"])],
    ),
    "attention": (attention(), [("value", ["output"]), ("norm", ["value", "query"])]),
    "a factor per channel": (
        tokens(
            node("Softmax", ["x"], ["s"]),
            node("Mul", ["s", "g"], ["n"], name="factor"),
            *linear("n", "w", "y"),
            **weights(g=(8,), w=(8, 4), wb=(4,)),
        ),
        [("factor", ["w"])],
    ),
    "batch norm": (
        between(
            node("BatchNormalization", ["p", "g", "c", "mean", "var"], ["q"], name="norm"),
            **weights(g=(6,), c=(6,), mean=(6,)),
            var=np.ones(6, np.float32),
        ),
        [("norm", ["b"])],
    ),
}
BLOCKED = {
    "another activation": between(node("Sigmoid", ["p"], ["q"])),
    "a residual addition": images(
        [conv("x", "a", "p"), conv("p", "d", "r"), node("Add", ["p", "r"], ["q"]), conv("q", "b", "y")],
        {**FIRST, **LAST, **weights(d=(6, 6, 3, 3), db=(6,))},
    ),
    "a lower bound": between(node("Clip", ["p", "low"], ["q"]), low=np.float32(-1)),
    "padded with ones": between(
        node("Pad", ["p", "pads", "one"], ["q"]), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), one=np.float32(1)
    ),
    "a mean over channels": between(
        node("ReduceMean", ["p", "axis"], ["m"]),
        node("Expand", ["m", "to"], ["q"]),
        axis=np.array([1]),
        to=np.array([1, 6, 1, 1]),
    ),
    "a number added to all": between(node("Add", ["p", "one"], ["q"]), one=np.float32(1)),
    "squares": between(node("Mul", ["p", "p"], ["q"])),
    "a weight that two layers use": images(
        [
            conv("x", "a", "p"),
            conv("p", "b", "q"),
            node("Conv", ["p", "b"], ["r"], pads=[1, 1, 1, 1]),
            node("Add", ["q", "r"], ["y"]),
        ],
        {**FIRST, **LAST},
    ),
    "a layer in float": images(
        [conv("x", "a", "p"), node("Conv", ["p", "b", "bb"], ["y"], name="in_float_0:b", pads=[1, 1, 1, 1])],
        {**FIRST, **LAST},
    ),
    "an output of the model": onnx_model(
        [conv("x", "a", "p"), conv("p", "b", "y")],
        {"x": ("batch", 3, 8, 8)},
        {"y": ("batch", 4, 8, 8), "p": ("batch", 6, 8, 8)},
        {**FIRST, **LAST},
    ),
}


def saved(model: onnx.ModelProto, path: Path) -> Artifact:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return save_model(copied, path)


def feed_of(model: onnx.ModelProto) -> dict[str, Array]:
    return IMAGE if len(model.graph.input[0].type.tensor_type.shape.dim) == 4 else TOKENS


def found_in(model: onnx.ModelProto) -> list[Passage]:
    made = (name for node in model.graph.node for name in node.output)
    return passages(model.graph, shapes_of(model, feed_of(model), made))


@pytest.mark.parametrize("case", MOVABLE)
def test_scales_can_be_moved_through_what_they_pass_unchanged(case: str) -> None:
    model, wanted = MOVABLE[case]
    found = found_in(model)
    names = [(model.graph.node[one.place].name, [reader.weight.node.name for reader in one.readers]) for one in found]
    assert names == wanted


@pytest.mark.parametrize("case", MOVABLE)
def test_moving_any_scales_leaves_the_function_as_it_is(case: str, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(MOVABLE[case][0])
    before = saved(model, tmp_path / "original.onnx")
    tensors = StoredTensors(model.graph)
    for passage in found_in(model):
        # scales below 1 would bring values up to a bound
        least = 1.0 if passage.ceilings else 0.01
        scales = np.random.default_rng(passage.place).uniform(least, 100.0, passage.size)
        passage.scale_weights(tensors, scales)
        passage.scale_vectors(tensors, scales)
    tensors.write()
    after = saved(model, tmp_path / "after.onnx")
    (wanted,), (found,) = (
        OnnxRuntime().load(one, 1, {}).run({name: 0.05 * value for name, value in feed_of(model).items()})
        for one in (before, after)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    assert before.path.read_bytes() != after.path.read_bytes()


@pytest.mark.parametrize("case", BLOCKED)
def test_nothing_moves_where_the_function_would_change(case: str) -> None:
    places = [one.place for one in found_in(BLOCKED[case])]
    assert 0 not in places


def test_a_vector_that_two_norms_share_is_changed_for_one_of_them() -> None:
    nodes = [
        node("LayerNormalization", ["x", "g", "c"], ["n"], name="one"),
        *linear("n", "u", "k"),
        node("LayerNormalization", ["k", "g", "c"], ["m"], name="two"),
        node("Sigmoid", ["m"], ["s"]),
        *linear("s", "w", "y"),
    ]
    model = tokens(*nodes, **weights(g=(8,), c=(8,), u=(8, 8), ub=(8,), w=(8, 4), wb=(4,)))
    (passage,) = found_in(model)
    tensors = StoredTensors(model.graph)
    passage.scale_vectors(tensors, np.full(8, 2.0))
    tensors.write()
    one, two = (next(given for given in model.graph.node if given.name == name) for name in ("one", "two"))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert one.input[1] != two.input[1]
    np.testing.assert_allclose(2 * values[one.input[1]], values[two.input[1]], rtol=1e-6)


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=9), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_largest_value_of_each_channel_is_found(places: list[int], seed: int) -> None:
    values = np.abs(np.random.default_rng(seed).standard_normal((2, len(places), 3)))
    found = largest_by_channel(values, np.array(places).reshape(1, -1, 1), 4)
    for channel in range(4):
        mine = values[:, np.array(places) == channel]
        assert found[channel] == (mine.max() if mine.size else 0.0)
