"""Layers that a plan leaves in float are computed in float by the runtime, and their neighbours in int8."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Setting
from autocompress.core.runtime import Example, align
from autocompress.core.search_space import first_options
from autocompress.core.source import whole
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import Int8Dynamic, Int8Static
from autocompress.testing.artifact_technique_suite import relative_error
from autocompress.testing.networks import labelled, labelled_source, onnx_model, small_model

Networks = Callable[[str], Artifact]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """The small networks' files with names, each exported once; the last layer of `marked` stays in float."""

    @cache
    def export(model: str) -> Artifact:
        network, keep_float = ("mlp", ["layers.4"]) if model == "marked" else (model, [])
        path = tmp_path_factory.mktemp("named") / f"{model}.onnx"
        example = Example(labelled(network, 4)[0])
        return OnnxRuntime().export(small_model(network), example, path, keep_float, named=True)

    return export


def quantized(
    technique: ArtifactTechnique, artifact: Artifact, model: str, folder: Path, in_float: str = "", **changed: Setting
) -> Artifact:
    folder.mkdir(exist_ok=True)
    settings = {**first_options(technique.choices), **changed, **({"in_float": in_float} if in_float else {})}
    return technique.apply(artifact, settings, Context(None, None, whole("train", labelled_source(model, 48)), folder))


def as_executed(artifact: Artifact, folder: Path) -> Counter[str]:
    """The operators that the runtime executes, by type."""
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(folder / "executed.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(str(artifact.path), settings, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "executed.onnx").graph.node
    return Counter(node.op_type for node in nodes)


def weights_in_float(artifact: Artifact) -> set[tuple[int, ...]]:
    tensors = onnx.load(artifact.path).graph.initializer
    return {tuple(tensor.dims) for tensor in tensors if tensor.data_type == 1 and len(tensor.dims) > 1}


@pytest.mark.parametrize("layer", ["stem.0", "block.0", "block.3"])
def test_one_convolution_is_computed_in_float_and_the_others_in_int8(
    layer: str, named: Networks, tmp_path: Path
) -> None:
    artifact = named("cnn")
    every = as_executed(quantized(Int8Static(), artifact, "cnn", tmp_path / "every"), tmp_path)
    assert every["QLinearConv"] == 3
    mixed = quantized(Int8Static(), artifact, "cnn", tmp_path / "mixed", layer)
    executed = as_executed(mixed, tmp_path)
    assert (executed["QLinearConv"], executed["Conv"] + executed["FusedConv"]) == (2, 1)
    assert executed["QLinearAdd"] == every["QLinearAdd"] == 1
    # what keeps it from being fused is computed inside the convolution
    assert executed["LeakyRelu"] == 0
    assert len(weights_in_float(mixed)) == 1


@pytest.mark.parametrize(("operator", "int8"), [("Add", "QLinearAdd")])
def test_an_operator_without_weights_is_computed_in_float(
    operator: str, int8: str, named: Networks, tmp_path: Path
) -> None:
    artifact = named("cnn")
    executed = as_executed(quantized(Int8Static(), artifact, "cnn", tmp_path / "mixed", operator), tmp_path)
    assert (executed[operator], executed[int8], executed["QLinearConv"]) == (1, 0, 3)


def test_between_layers_in_float_nothing_is_quantized(named: Networks, tmp_path: Path) -> None:
    artifact = named("cnn")
    names = [node.name for node in onnx.load(artifact.path).graph.node]
    with pytest.raises(TechniqueError, match="quantized nothing"):
        quantized(Int8Static(), artifact, "cnn", tmp_path / "none", " ".join(names))
    most = [name for name in names if name != "block.0"]
    executed = as_executed(quantized(Int8Static(), artifact, "cnn", tmp_path / "most", " ".join(most)), tmp_path)
    assert [executed[kind] for kind in ("QLinearConv", "QuantizeLinear", "DequantizeLinear", "LeakyRelu")] == [
        1,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
@pytest.mark.parametrize("technique", [Int8Static, Int8Dynamic])
def test_each_layer_in_float_brings_the_outputs_no_further_away(
    technique: type[ArtifactTechnique], model: str, named: Networks, tmp_path: Path
) -> None:
    artifact = named(model)
    changed: dict[str, Setting] = {"convolutions": True} if technique is Int8Dynamic else {}
    feed = align(labelled(model, 64, seed=1)[0], artifact.inputs)
    (wanted,) = OnnxRuntime().load(artifact, 1, {}).run(feed)

    def error(in_float: str, place: str) -> tuple[float, int]:
        made = quantized(technique(), artifact, model, tmp_path / place, in_float, **changed)
        return relative_error(OnnxRuntime().load(made, 1, {}).run(feed)[0], wanted), made.size_bytes

    every, bytes_of_all = error("", "every")
    weighted = [
        name
        for name in ("layers.0", "layers.2", "stem.0", "block.0", "encoder.linear1", "head")
        if name in {node.name for node in onnx.load(artifact.path).graph.node}
    ]
    assert weighted
    for number, name in enumerate(weighted):
        found, size = error(name, str(number))
        assert found < 1.1 * every
        assert size > bytes_of_all or name == "head"


def test_a_name_that_the_file_does_not_have_is_an_error_that_says_so(named: Networks, tmp_path: Path) -> None:
    artifact = named("mlp")
    for technique in (Int8Static(), Int8Dynamic()):
        with pytest.raises(TechniqueError, match=r"cannot leave 'nowhere' in float: no node of the file has that name"):
            quantized(technique, artifact, "mlp", tmp_path / "made", "layers.0 nowhere")
        assert not list((tmp_path / "made").iterdir())


def test_marked_layers_stay_in_float_beside_named_ones(named: Networks, tmp_path: Path) -> None:
    artifact = named("marked")
    for number, technique in enumerate((Int8Static(), Int8Dynamic())):
        made = quantized(technique, artifact, "mlp", tmp_path / str(number), "layers.0")
        assert {tuple(sorted(shape)) for shape in weights_in_float(made)} == {(24, 64), (5, 64)}


def test_a_weight_that_a_quantized_layer_shares_is_kept_in_float_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in {"first": (24, 256), "shared": (256, 256), "last": (256, 5)}.items()
    }
    read = [("input", "first", "a"), ("a", "shared", "b"), ("b", "shared", "c"), ("c", "last", "output")]
    nodes = [onnx.helper.make_node("MatMul", [one, other], [made], made) for one, other, made in read]
    onnx.save(onnx_model(nodes, {"input": ("batch", 24)}, {"output": ("batch", 5)}, weights), tmp_path / "shared.onnx")
    shared = OnnxRuntime().read(tmp_path / "shared.onnx")
    # the float weight and its copy in int8 together are larger than the float weight alone
    with pytest.raises(TechniqueError, match="no smaller"):
        quantized(Int8Static(), shared, "mlp", tmp_path / "made", "c")
    (made,) = (tmp_path / "made").iterdir()
    tensors = [t for t in onnx.load(made).graph.initializer if tuple(t.dims) == (256, 256)]
    assert {str(numpy_helper.to_array(tensor).dtype) for tensor in tensors} == {"float32", "int8"}


def test_the_layers_are_counted_in_the_description() -> None:
    settings = first_options(Int8Static.choices)
    assert "in_float" not in settings
    assert Int8Static().describe([settings]) == "int8"
    assert Int8Static().describe([{**settings, "in_float": "a b c"}]) == "int8 (3 layers in float)"
    assert Int8Dynamic().describe([{"in_float": "a"}]) == "dynamic int8 (1 layer in float)"
