"""Each operator beside onnxruntime, in the forms that differ: padding, versions, negative axes and steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from autocompress.core.source import Array
from autocompress.errors import TechniqueError
from autocompress.simulation.graph_module import GraphModule
from autocompress.simulation.integer_operators import DYNAMIC
from autocompress.simulation.operators import OPERATORS

RANDOM = np.random.default_rng(3)


def floats(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


X, IMAGE, SERIES = floats(2, 3, 4), floats(2, 4, 7, 6), floats(5, 2, 3)
NONE = np.zeros(0, dtype=np.float32)
INDICES, MASK = np.array([[0, -1, 2]]), X > 0
KERNEL, DEEP = floats(6, 4, 3, 2), floats(4, 1, 3, 3)
LSTM, GRU = (floats(2, 16, 3), floats(2, 16, 4), floats(2, 32)), (floats(1, 12, 3), floats(1, 12, 4), floats(1, 24))
# operator, inputs, attributes, version of the operator set where it matters
CASES: list[tuple[str, list[Array | None], dict[str, Any], int]] = [
    *((name, [X], {}, 20) for name in ("Neg", "Abs", "Sign", "Exp", "Erf", "Sin", "Cos", "Floor", "Ceil", "Round")),
    *(
        (name, [X], {}, 20)
        for name in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Mish", "Softplus", "Softsign", "IsNaN")
    ),
    *((name, [np.abs(X)], {}, 20) for name in ("Sqrt", "Reciprocal", "Log")),
    *((name, [X, floats(3, 1)], {}, 20) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Less", "Greater")),
    *((name, [X, X.round()], {}, 20) for name in ("Equal", "LessOrEqual", "GreaterOrEqual")),
    *((name, [MASK, ~MASK], {}, 20) for name in ("And", "Or", "Xor")),
    ("Not", [MASK], {}, 20),
    ("Sum", [X, X, X], {}, 20),
    ("Mean", [X, X, floats(4)], {}, 20),
    ("Div", [whole(-7, 7, 9), whole(2, 2, 4)], {}, 20),
    ("Mod", [whole(-7, 7, 9), whole(2, -2, 4)], {}, 20),
    ("Mod", [X, np.abs(X) + 1], {"fmod": 1}, 20),
    ("Pow", [np.abs(X), np.array(2, dtype=np.int64)], {}, 20),
    ("IsInf", [np.array([1, -np.inf, np.inf], dtype=np.float32)], {"detect_negative": 0}, 20),
    ("Where", [MASK, X, floats(1)], {}, 20),
    ("Clip", [X, np.float32(-0.5), None], {}, 20),
    ("Clip", [X], {"min": -0.5, "max": 0.5}, 10),
    ("LeakyRelu", [X], {"alpha": 0.2}, 20),
    ("PRelu", [X, floats(3, 1)], {}, 20),
    ("Elu", [X], {"alpha": 0.7}, 20),
    ("HardSigmoid", [X], {"alpha": 0.3, "beta": 0.4}, 20),
    ("Gelu", [X], {}, 20),
    ("Gelu", [X], {"approximate": "tanh"}, 20),
    ("Softmax", [X], {"axis": 1}, 20),
    ("Softmax", [X], {"axis": 1}, 11),
    ("LogSoftmax", [X], {}, 20),
    ("Cast", [X], {"to": TensorProto.INT64}, 20),
    ("CastLike", [X, whole(1)], {}, 20),
    ("Identity", [X], {}, 20),
    ("Dropout", [X], {}, 20),
    *((name, [X, whole(0, -1)], {"keepdims": 0}, 20) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")),
    *((name, [X, whole(0, 2)], {}, 20) for name in ("ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp")),
    ("ReduceSumSquare", [X], {}, 20),
    ("ReduceMean", [X], {"axes": [1]}, 13),
    ("ReduceMean", [X, whole()], {"noop_with_empty_axes": 1}, 20),
    ("ReduceSum", [whole(3, 4)], {}, 20),
    ("ReduceProd", [whole(3, 4)], {"keepdims": 0}, 20),
    ("ArgMax", [X], {"axis": 2, "keepdims": 0}, 20),
    ("ArgMin", [X], {"axis": -1}, 20),
    ("TopK", [X, whole(2)], {"axis": -1}, 20),
    ("CumSum", [X, np.array(1)], {}, 20),
    ("CumSum", [X, np.array(1)], {"exclusive": 1, "reverse": 1}, 20),
    ("Constant", [], {"value_ints": [1, 2]}, 20),
    ("ConstantOfShape", [whole(2, 3)], {"value": numpy_helper.from_array(np.array([7]))}, 20),
    ("Shape", [X], {"start": 1}, 20),
    ("Size", [X], {}, 20),
    ("Reshape", [X, whole(0, -1)], {}, 20),
    ("Flatten", [X], {"axis": 2}, 20),
    ("Squeeze", [floats(1, 3, 1), whole(0, -1)], {}, 20),
    ("Squeeze", [floats(1, 3, 1)], {"axes": [0]}, 11),
    ("Unsqueeze", [X, whole(-1, 0)], {}, 20),
    ("Transpose", [X], {"perm": [2, 0, 1]}, 20),
    ("Transpose", [X], {}, 20),
    ("Concat", [X, X], {"axis": -1}, 20),
    ("Split", [X, whole(1, 3)], {"axis": 2}, 20),
    ("Split", [X], {"axis": 1, "num_outputs": 2}, 20),
    ("Slice", [X, whole(-3, 0), whole(9999, 2), whole(2, 1), whole(2, 1)], {}, 20),
    ("Slice", [X, whole(-1), whole(-9999), whole(2), whole(-1)], {}, 20),
    ("Slice", [X, whole(2), whole(0), whole(2), whole(-1)], {}, 20),
    ("Slice", [X], {"starts": [1], "ends": [3], "axes": [1]}, 9),
    ("Gather", [X, INDICES], {"axis": 1}, 20),
    ("GatherElements", [X, np.array([[[1, -1, 0, 2]]])], {"axis": 1}, 20),
    ("GatherND", [X, np.array([[0, 1], [1, 2]])], {}, 20),
    ("GatherND", [X, np.array([[1], [2]])], {"batch_dims": 1}, 20),
    ("ScatterND", [X, np.array([[0, 1], [1, 2]]), floats(2, 4)], {}, 20),
    ("ScatterND", [X, np.array([[0, 1], [0, 1]]), floats(2, 4)], {"reduction": "add"}, 20),
    ("Expand", [floats(3, 1), whole(2, 1, 4)], {}, 20),
    ("Tile", [X, whole(1, 2, 3)], {}, 20),
    ("Pad", [IMAGE, whole(0, 1, 2, 0, 0, 1, 0, 3), np.float32(2)], {}, 20),
    ("Pad", [IMAGE, whole(-1, 2), None, whole(3)], {}, 20),
    ("Pad", [IMAGE, whole(0, 0, 2, 1, 0, 0, 1, 3)], {"mode": "reflect"}, 20),
    ("Pad", [IMAGE, whole(0, 0, 0, 1, 0, 0, 0, 3)], {"mode": "edge"}, 20),
    ("Range", [np.array(2), np.array(9), np.array(3)], {}, 20),
    ("OneHot", [whole(0, -1, 2), np.array(4), np.array([0.5, 2.0], dtype=np.float32)], {}, 20),
    ("NonZero", [MASK], {}, 20),
    ("Trilu", [X, np.array(1)], {"upper": 0}, 20),
    ("DepthToSpace", [IMAGE], {"blocksize": 2}, 20),
    ("DepthToSpace", [IMAGE], {"blocksize": 2, "mode": "CRD"}, 20),
    ("Conv", [IMAGE, KERNEL, floats(6)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}, 20),
    ("Conv", [IMAGE, DEEP], {"group": 4, "dilations": [2, 1], "pads": [1, 1, 1, 1]}, 20),
    ("Conv", [IMAGE, KERNEL], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 20),
    ("Conv", [IMAGE, KERNEL], {"auto_pad": "SAME_LOWER"}, 20),
    ("Conv", [floats(2, 3, 9), floats(4, 3, 3)], {"pads": [2, 0]}, 20),
    (
        "ConvTranspose",
        [IMAGE, floats(4, 3, 3, 3)],
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
        20,
    ),
    ("Gemm", [floats(2, 3), floats(5, 3), floats(5)], {"transB": 1}, 20),
    ("Gemm", [floats(3, 2), floats(3, 5), floats(2, 1)], {"transA": 1, "alpha": 0.5, "beta": 2.0}, 20),
    ("MatMul", [X, floats(4, 5)], {}, 20),
    ("Einsum", [X, floats(4, 3)], {"equation": "abc,cb->ab"}, 20),
    ("BatchNormalization", [IMAGE, floats(4), floats(4), floats(4), np.abs(floats(4))], {"epsilon": 1e-3}, 20),
    ("LayerNormalization", [X, floats(3, 4), floats(3, 4)], {"axis": 1}, 20),
    ("LayerNormalization", [X, floats(4)], {}, 20),
    ("InstanceNormalization", [IMAGE, floats(4), floats(4)], {}, 20),
    ("GroupNormalization", [IMAGE, floats(4), floats(4)], {"num_groups": 2}, 21),
    ("LpNormalization", [X], {"axis": 1}, 20),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1]}, 20),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]}, 20),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1]}, 20),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 20),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}, 20),
    ("GlobalAveragePool", [IMAGE], {}, 20),
    ("GlobalMaxPool", [IMAGE], {}, 20),
    ("Resize", [IMAGE, None, np.array([1, 1, 2, 2], dtype=np.float32)], {"mode": "nearest"}, 20),
    (
        "Resize",
        [IMAGE, None, None, whole(2, 4, 9, 5)],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        20,
    ),
    ("Resize", [IMAGE, None, None, whole(2, 4, 10, 9)], {"mode": "linear"}, 20),
    (
        "Resize",
        [IMAGE, None, None, whole(2, 4, 10, 9)],
        {"mode": "cubic", "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "align_corners"},
        20,
    ),
    ("LSTM", [SERIES, *LSTM], {"hidden_size": 4, "direction": "bidirectional"}, 20),
    ("LSTM", [SERIES, *(part[:1] for part in LSTM), None, floats(1, 2, 4), floats(1, 2, 4)], {"hidden_size": 4}, 20),
    ("GRU", [SERIES, *GRU], {"hidden_size": 4, "linear_before_reset": 1, "direction": "reverse"}, 20),
    ("RNN", [SERIES, *(part[:, :4] for part in GRU[:2])], {"hidden_size": 4}, 20),
]
OUTPUTS = {"Split": 2, "TopK": 2, "LSTM": 3, "GRU": 2, "RNN": 2}
# operators that onnxruntime has no float kernel for in these versions
ALONE = {"RMSNormalization", "Swish"}


def one_node(kind: str, inputs: list[Array | None], attributes: dict[str, Any], opset: int) -> onnx.ModelProto:
    """A graph of one node whose first input is given at each call and whose others are stored."""
    names = ["" if array is None else f"input{place}" for place, array in enumerate(inputs)]
    outputs = [f"output{place}" for place in range(OUTPUTS.get(kind, 1))]
    first = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))
        for name, array in zip(names[:1], inputs[:1], strict=True)
        if array is not None
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, names, outputs, **attributes)],
        "one",
        first,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(a), n)
            for n, a in list(zip(names, inputs, strict=True))[1:]
            if a is not None
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def compared(model: onnx.ModelProto, feed: dict[str, Array]) -> list[tuple[Array, Array]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = GraphModule(model)(**{name: torch.from_numpy(array) for name, array in feed.items()})
    return list(zip(session.run(None, feed), (value.detach().numpy() for value in found.values()), strict=True))


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "opset"), CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)]
)
def test_an_operator_computes_what_onnxruntime_computes(
    kind: str, inputs: list[Array | None], attributes: dict[str, Any], opset: int
) -> None:
    model = one_node(kind, inputs, attributes, opset)
    feed = {f"input{place}": array for place, array in enumerate(inputs[:1]) if array is not None}
    for wanted, found in compared(model, feed):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
        else:
            assert np.array_equal(found, wanted)


def test_every_operator_of_the_table_is_compared() -> None:
    # those of dynamic int8 give whole numbers as floats, and are compared in test_dynamic_quantization
    assert set(OPERATORS) - ALONE - set(DYNAMIC) <= {case[0] for case in CASES}


def test_an_operator_that_is_not_covered_is_named_with_its_layer() -> None:
    model = one_node("Det", [floats(3, 3)], {}, 20)
    model.graph.node[0].name = "head.det"
    with pytest.raises(TechniqueError, match="operator Det is not covered") as caught:
        GraphModule(model)
    assert caught.value.where == "head.det"


def test_a_form_of_an_operator_that_is_not_covered_is_named_with_its_node() -> None:
    model = one_node("GRU", [SERIES, *GRU], {"hidden_size": 4}, 20)
    with pytest.raises(TechniqueError, match="reset gate before the product") as caught:
        GraphModule(model)(input0=torch.from_numpy(SERIES))
    assert caught.value.where == "GRU 1"


def test_inputs_that_do_not_fit_are_named_with_their_node() -> None:
    model = one_node("MatMul", [X, floats(4, 5)], {}, 20)
    with pytest.raises(TechniqueError, match="simulation of MatMul") as caught:
        GraphModule(model)(input0=torch.ones(2, 3))
    assert caught.value.where == "MatMul 1"
