import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autocompress.core.artifact import TensorSpec
from autocompress.core.runtime import align
from autocompress.core.source import Array
from autocompress.errors import ArtifactError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import compact, describe, load_model, save_model, weight_labels
from autocompress.testing.networks import Exports, labelled, onnx_model

ROW = ("batch", 3)
STEPS = np.array([1.0, -2.0, 0.5], dtype=np.float32)
INPUT = np.array([[1.0, 2.0, -3.0], [-0.5, -4.0, 0.25]], dtype=np.float32)


def compacted(model: onnx.ModelProto) -> onnx.ModelProto:
    """What `compact` makes of a copy."""
    return compact(copy.deepcopy(model))


def outputs_of(model: onnx.ModelProto, **feed: Array) -> list[Array]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feed or {"x": INPUT})]


def assert_computes_the_same(model: onnx.ModelProto, **feed: Array) -> onnx.ModelProto:
    """Checks that `compact` changes no bit of the outputs; gives back what it made."""
    onnx.checker.check_model(model, full_check=True)
    result = compacted(model)
    onnx.checker.check_model(result, full_check=True)
    wanted, found = outputs_of(model, **feed), outputs_of(result, **feed)
    assert [array.tobytes() for array in found] == [array.tobytes() for array in wanted]
    assert [array.shape for array in found] == [array.shape for array in wanted]
    return result


def value(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[int | str] = ROW) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def branching(
    weights: dict[str, Array], positive: str, negative: str, inside: Sequence[onnx.TensorProto] = ()
) -> onnx.ModelProto:
    """y = -(x + positive) where the sum of x is above zero, else -(x - negative); both names lie outside."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x", positive], ["then_result"])],
        "then",
        [],
        [value("then_result")],
        inside,
    )
    otherwise = helper.make_graph(
        [helper.make_node("Sub", ["x", negative], ["else_result"])], "else", [], [value("else_result")]
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["is_positive"]),
        helper.make_node("If", ["is_positive"], ["chosen"], then_branch=then, else_branch=otherwise),
        helper.make_node("Neg", ["chosen"], ["y"]),
    ]
    zero = np.array(0.0, dtype=np.float32)
    return onnx_model(nodes, {"x": ROW}, {"y": ROW}, {"zero": zero, **weights})


def looping(trip: str = "trip", going: str = "going", carried: str = "carried") -> onnx.ModelProto:
    """y = -(relu(x) + 3 steps); the arguments name the inputs of the loop's body."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", [going], ["still_going"]),
            helper.make_node("Add", [carried, "steps"], ["carried_on"]),
        ],
        "body",
        [value(trip, TensorProto.INT64, []), value(going, TensorProto.BOOL, []), value(carried)],
        [value("still_going", TensorProto.BOOL, []), value("carried_on")],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["start"]),
        helper.make_node("Loop", ["trips", "go", "start"], ["end"], body=body),
        helper.make_node("Neg", ["end"], ["y"]),
    ]
    weights = {"trips": np.array(3), "go": np.array(True), "steps": STEPS}
    return onnx_model(nodes, {"x": ROW}, {"y": ROW}, weights)


def microbenchmark(weights: dict[str, Array]) -> onnx.ModelProto:
    """x + w1 + w2 + ..."""
    names = ["x", *(f"a long name of a sum {i}" for i in range(len(weights) - 1)), "y"]
    nodes = [
        helper.make_node("Add", [names[i], weight], [names[i + 1]], name=f"node {i}", doc_string="says much")
        for i, weight in enumerate(weights)
    ]
    return onnx_model(nodes, {"x": ROW}, {"y": ROW}, weights)


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "chain": lambda: microbenchmark({"w1": STEPS, "w2": STEPS * 2, "w3": STEPS}),
    "more names than digits": lambda: microbenchmark({f"weight {i}": STEPS * i for i in range(200)}),
    "branches": lambda: branching({"p": STEPS, "n": STEPS * 2}, "p", "n"),
    "branches on one weight": lambda: branching({"p": STEPS}, "p", "p"),
    "branches that refer to an output": lambda: branching({"p": STEPS, "n": STEPS * 2}, "p", "x"),
    "loop": looping,
    "loop with short names": lambda: looping("0", "1", "2"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_compacting_leaves_every_bit_of_the_outputs(name: str, sign: float) -> None:
    assert_computes_the_same(MODELS[name](), x=INPUT * np.float32(sign))


@pytest.mark.parametrize("name", ["cnn", "mlp", "lstm", "transformer"])
def test_an_exported_network_stays_as_it_is_when_compacted_again(exports: Exports, name: str) -> None:
    exported = exports(OnnxRuntime(), name)
    model = load_model(exported.artifact.path)
    assert compacted(model).SerializeToString(deterministic=True) == exported.artifact.path.read_bytes()
    feed = align(labelled(name, 3)[0], exported.artifact.inputs)
    assert_computes_the_same(model, **feed)


@pytest.mark.parametrize("name", MODELS)
def test_compacting_twice_is_compacting_once(name: str) -> None:
    once = compacted(MODELS[name]())
    twice = compacted(once)
    assert twice.SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", MODELS)
def test_compacting_keeps_inputs_and_outputs(name: str) -> None:
    model = MODELS[name]()
    result = compacted(model)
    assert [entry.name for entry in result.graph.input] == [entry.name for entry in model.graph.input]
    assert [entry.name for entry in result.graph.output] == [entry.name for entry in model.graph.output]
    assert describe(result, Path("m.onnx")) == describe(model, Path("m.onnx"))


def test_names_and_documentation_go() -> None:
    model = microbenchmark({"a long name of a weight": STEPS, "another long name": STEPS * 2})
    model.doc_string = model.graph.doc_string = model.producer_version = "much to read"
    model.domain = "org.example"
    for holder in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input):
        entry = holder.metadata_props.add()
        entry.key, entry.value = "much", "to read"
    model.graph.value_info.append(value("a long name of a sum 0"))
    result = assert_computes_the_same(model)
    content = result.SerializeToString()
    for trace in (b"much", b"long name", b"says", b"example", b"node 0", b"handmade"):
        assert trace not in content
    assert len(content) < 0.5 * len(model.SerializeToString())


def test_the_bytes_depend_on_the_graph_and_not_on_its_names() -> None:
    one, other = microbenchmark({"w1": STEPS, "w2": STEPS * 2}), microbenchmark({"first": STEPS, "second": STEPS * 2})
    other.doc_string, other.graph.name, other.producer_name = "other", "other", "other"
    wanted = compacted(one).SerializeToString(deterministic=True)
    assert compacted(other).SerializeToString(deterministic=True) == wanted


def test_repeated_weights_are_stored_once() -> None:
    large = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    model = microbenchmark({"w1": STEPS, "w2": large[7], "w3": STEPS.copy(), "w4": STEPS.copy()})
    result = assert_computes_the_same(model)
    assert len(result.graph.initializer) == 2
    assert len({name for node in result.graph.node for name in node.input}) == 2 + 4


def test_weights_are_shared_whichever_way_their_values_are_written() -> None:
    model = microbenchmark({"w1": STEPS, "w2": STEPS})
    written_out = helper.make_tensor("w2", TensorProto.FLOAT, [3], STEPS.tolist())
    assert not written_out.raw_data
    model.graph.initializer[1].CopyFrom(written_out)
    assert len(assert_computes_the_same(model).graph.initializer) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros(3, dtype=np.float32), -np.zeros(3, dtype=np.float32)),
        (STEPS, STEPS[None]),
        (STEPS, np.nextafter(STEPS, np.float32(9), dtype=np.float32)),
    ],
    ids=["signs of zero", "shapes", "last bits"],
)
def test_weights_that_differ_in_anything_are_kept_apart(first: Array, second: Array) -> None:
    assert len(compacted(microbenchmark({"w1": first, "w2": second})).graph.initializer) == 2


def test_weights_of_the_same_bytes_and_another_type_are_kept_apart() -> None:
    nodes = [
        helper.make_node("Cast", ["whole"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["cast", "real"], ["sum"]),
        helper.make_node("Add", ["sum", "x"], ["y"]),
    ]
    weights = {"whole": STEPS.view(np.int32), "real": STEPS}
    assert_computes_the_same(onnx_model(nodes, {"x": ROW}, {"y": ROW}, weights))


def test_a_weight_that_is_an_output_keeps_its_name() -> None:
    model = microbenchmark({"w1": STEPS, "w2": STEPS})
    model.graph.output.append(value("w2", shape=[3]))
    result = assert_computes_the_same(model)
    assert "w2" in {tensor.name for tensor in result.graph.initializer}


def test_repeated_weights_that_a_branch_refers_to_stay_within_reach() -> None:
    assert_computes_the_same(branching({"p": STEPS, "n": STEPS.copy()}, "p", "n"), x=-INPUT)


def test_repeated_defaults_of_inputs_stay_defaults() -> None:
    model = microbenchmark({"w1": STEPS, "w2": STEPS})
    model.graph.input.extend([value("w1", shape=[3]), value("w2", shape=[3])])
    assert len(describe(model, Path("m.onnx")).inputs) == 1
    assert_computes_the_same(model)


def test_short_names_do_not_hide_behind_a_weight_of_a_branch() -> None:
    own = numpy_helper.from_array(STEPS, "1")
    assert_computes_the_same(branching({"p": STEPS * 3, "n": STEPS * 2}, "p", "n", inside=[own]))


def test_no_name_is_another_and_a_number() -> None:
    # an input keeps its name; onnxruntime's quantizer would call copies of a bias named "a" "a0", "a1", ...
    weights = {f"w{place}": STEPS * (place + 1) for place in range(70)}
    names = ["a1", *(f"h{place}" for place in range(69)), "y"]
    nodes = [helper.make_node("Add", [names[i], f"w{i}"], [names[i + 1]]) for i in range(70)]
    graph = compacted(onnx_model(nodes, {"a1": ROW}, {"y": ROW}, weights)).graph
    own = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    assert len(own) == 140
    assert not any(letter.isdigit() for name in own for letter in name)
    assert "a" not in own


def test_a_free_first_dimension_is_called_batch_and_fixed_ones_stay() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    result = compacted(onnx_model(nodes, {"x": ("s77", 3, "s5")}, {"y": ("s77", 3, "s5")}, {}))
    for entry in (*result.graph.input, *result.graph.output):
        dims = entry.type.tensor_type.shape.dim
        assert (dims[0].dim_param, dims[1].dim_value, dims[2].dim_param) == ("batch", 3, "s5")
    fixed = compacted(onnx_model(nodes, {"x": (4, 3)}, {"y": (4, 3)}, {}))
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


# files


def test_what_was_saved_is_described_and_loaded_again(tmp_path: Path) -> None:
    model = microbenchmark({"w1": STEPS})
    artifact = save_model(model, tmp_path / "new folder" / "model.onnx")
    assert artifact.inputs == (TensorSpec("x", "float32", (None, 3)),)
    assert artifact.outputs == (TensorSpec("y", "float32", (None, 3)),)
    assert artifact.files == ("model.onnx",)
    assert load_model(artifact.path) == model
    assert [path.name for path in artifact.root.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("kind", ["float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"])
def test_dtypes_are_read_from_the_graph(kind: str) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", [value("x", element)], [value("y", element)]
    )
    assert describe(helper.make_model(graph), Path("m.onnx")).inputs[0].dtype == kind


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    content = microbenchmark({"w1": STEPS}).SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError) as caught:
            load_model(path)
        assert caught.value.where == str(path)


@settings(deadline=None, max_examples=100)
@given(st.binary(min_size=1, max_size=300))
def test_a_file_of_anything_else_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        load_model(path)


@pytest.mark.parametrize(
    "suffix",
    [
        ".onnx",
        ".txt",
        "",
        *(pytest.param(suffix) for suffix in (".json", ".textproto", ".onnxtxt", ".pbtxt")),
    ],
)
def test_a_text_is_refused_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_text('{"weights": [1, 2, 3]}\n')
    with pytest.raises(ArtifactError, match="not a whole ONNX model"):
        load_model(path)


def test_weights_that_are_missing_beside_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    onnx.save(microbenchmark({"w1": STEPS}), path, save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    with pytest.raises(ArtifactError, match="which is not beside it"):
        load_model(path)


# what weights are called


def test_a_nameless_weight_is_called_by_where_it_is_used_and_its_shape() -> None:
    model = compact(microbenchmark({"w1": STEPS, "w2": STEPS * 2}))
    shape = "x".join(map(str, STEPS.shape))
    assert sorted(weight_labels(model).values()) == [f"Add 1 of 2, {shape}", f"Add 2 of 2, {shape}"]


def test_a_packed_weight_belongs_to_the_operator_that_it_is_unpacked_for() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["packed", "scale"], ["open"]),
        helper.make_node("Transpose", ["open"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    weights = {"packed": np.ones((2, 3), np.int8), "scale": np.array(0.5, np.float32)}
    model = onnx_model(nodes, {"x": ROW}, {"y": ROW}, weights)
    assert weight_labels(model) == {
        "packed": "packed, MatMul 1 of 1, 2x3",
        "scale": "scale, MatMul 1 of 1, one number",
    }
