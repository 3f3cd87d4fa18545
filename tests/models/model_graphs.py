"""Small ONNX graphs as different exporters leave them, for tests of files as models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from autocompress.core.source import Array

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.standard_normal((16, 64)).astype(np.float32)
SECOND = RANDOM.standard_normal((64, 3)).astype(np.float32)


def value(name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def graph(
    nodes: Sequence[NodeProto],
    weights: dict[str, Array],
    inputs: Sequence[ValueInfoProto] = (value("x", ("n", 16)),),
    outputs: Sequence[ValueInfoProto] = (value("y", ("n", 3)),),
    opset: int = 17,
    ir_version: int = 8,
) -> ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "graph", list(inputs), list(outputs), tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def node(operator: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def mlp(opset: int = 17, ir_version: int = 8) -> ModelProto:
    """Two products with weights by the names of a module's layers."""
    nodes = [
        node("MatMul", "x body.0.weight", "h", name="first"),
        node("Relu", "h", "r"),
        node("MatMul", "r head.weight", "y", name="second"),
    ]
    return graph(nodes, {"body.0.weight": FIRST, "head.weight": SECOND}, opset=opset, ir_version=ir_version)


def with_inputs_for_weights() -> ModelProto:
    """Weights that are inputs too, as files of ir version 3 have them."""
    made = mlp()
    made.graph.input.extend([value("body.0.weight", FIRST.shape), value("head.weight", SECOND.shape)])
    return made


def with_constant_nodes() -> ModelProto:
    """Weights in Constant nodes, one behind a transpose that nobody folded."""
    nodes = [
        node("Constant", "", "w", value=numpy_helper.from_array(FIRST)),
        node("Constant", "", "v", value=numpy_helper.from_array(np.ascontiguousarray(SECOND.T))),
        node("Transpose", "v", "t", perm=[1, 0]),
        node("MatMul", "x w", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r t", "y"),
    ]
    for one in nodes[:2]:
        del one.input[:]
    return graph(nodes, {})


def in_type(dtype: str) -> ModelProto:
    """Everything in another floating type."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    weights = {"w": FIRST.astype(dtype), "v": SECOND.astype(dtype)}
    return graph(nodes, weights, [value("x", ("n", 16), kind)], [value("y", ("n", 3), kind)])


def channels_last(opset: int = 11) -> ModelProto:
    """A convolution between transposes with a batch norm that was not folded, as from Keras."""
    kernel = RANDOM.standard_normal((32, 8, 3, 3)).astype(np.float32)
    scale, ones = np.full(32, 0.5, np.float32), np.ones(32, np.float32)
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t conv/kernel", "c", pads=[1, 1, 1, 1], name="model/conv/Conv2D"),
        node("BatchNormalization", "c scale mean mean ones", "b"),
        node("Relu", "b", "r"),
        node("GlobalAveragePool", "r", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f dense", "y", name="model/dense/MatMul"),
    ]
    weights = {"conv/kernel": kernel, "scale": scale, "mean": 0 * ones, "ones": ones, "dense": SECOND[:32].copy()}
    return graph(nodes, weights, [value("x", ("n", 8, 8, 8))], opset=opset)


def recurrent() -> ModelProto:
    """An LSTM whose input has the batch first."""
    w = RANDOM.standard_normal((1, 256, 16)).astype(np.float32)
    r = 0.1 * RANDOM.standard_normal((1, 256, 64)).astype(np.float32)
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("LSTM", "t rnn.W rnn.R", "all last", hidden_size=64),
        node("Squeeze", "last axis", "s"),
        node("MatMul", "s head", "y"),
    ]
    weights = {"rnn.W": w, "rnn.R": r, "axis": np.array([0]), "head": SECOND}
    return graph(nodes, weights, [value("x", ("n", 5, 16))])


def branching() -> ModelProto:
    """A branch on the sum of the input, with a weight from outside."""
    then = helper.make_graph([node("Relu", "h", "p")], "then", [], [value("p", ("n", 64))])
    other = helper.make_graph([node("Neg", "h", "q")], "other", [], [value("q", ("n", 64))])
    nodes = [
        node("MatMul", "x w", "h"),
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "c"),
        node("If", "c", "r", then_branch=then, else_branch=other),
        node("MatMul", "r v", "y"),
    ]
    return graph(nodes, {"w": FIRST, "v": SECOND, "zero": np.array(0, np.float32)})


def with_two_outputs() -> ModelProto:
    made = mlp()
    made.graph.output.append(value("r", ("n", 64)))
    return made


def with_a_fixed_batch() -> ModelProto:
    made = mlp()
    for one in (*made.graph.input, *made.graph.output):
        one.type.tensor_type.shape.dim[0].dim_value = 4
    return made


def classifier_with_zipmap() -> ModelProto:
    """Labels, and probabilities as a sequence of maps, as files of scikit-learn's classifiers give them."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("MatMul", "h v", "scores"),
        node("Softmax", "scores", "p"),
        node("ArgMax", "scores", "label", axis=1, keepdims=0),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    outputs = [
        value("label", ("n",), TensorProto.INT64),
        helper.make_value_info("maps", helper.make_sequence_type_proto(maps)),
    ]
    made = graph(nodes, {"w": FIRST, "v": SECOND}, outputs=outputs)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return made


def already_int8() -> ModelProto:
    nodes = [
        node("DynamicQuantizeLinear", "x", "q scale zero"),
        node("MatMulInteger", "q w zero", "i"),
        node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("Mul", "f scale", "y"),
    ]
    return graph(nodes, {"w": np.ones((16, 3), np.int8)})


def with_a_custom_operator() -> ModelProto:
    made = graph([helper.make_node("Foo", ["x"], ["y"], domain="mine")], {})
    made.opset_import.append(helper.make_opsetid("mine", 1))
    return made


KINDS: dict[str, Callable[[], ModelProto]] = {
    "mlp": mlp,
    "opset 9": lambda: mlp(opset=9, ir_version=4),
    "inputs for weights": with_inputs_for_weights,
    "constant nodes": with_constant_nodes,
    "float16": lambda: in_type("float16"),
    "float64": lambda: in_type("float64"),
    "channels last": channels_last,
    "recurrent": recurrent,
    "branching": branching,
    "two outputs": with_two_outputs,
}


def saved(model: ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def beside(model: ModelProto, path: Path, location: str) -> Path:
    """The model with its weights in another file; an odd location is written into the finished file."""
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    if location != "weights.bin":
        shell = onnx.load(path, load_external_data=False)
        for tensor in shell.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        saved(shell, path)
    return path
