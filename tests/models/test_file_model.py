"""ONNX files as models: what is read, what is refused, and what techniques begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from model_graphs import (
    KINDS,
    already_int8,
    beside,
    channels_last,
    classifier_with_zipmap,
    mlp,
    recurrent,
    saved,
    with_a_custom_operator,
    with_a_fixed_batch,
)

from autocompress.core.facts import Family, Kind
from autocompress.core.layer_patterns import require_layers
from autocompress.core.search_space import first_options
from autocompress.core.task import Task
from autocompress.core.technique import Context
from autocompress.errors import (
    ArtifactError,
    AutocompressError,
    DataError,
    FreeDimensionError,
    ModelError,
    ProfileError,
)
from autocompress.models import as_model
from autocompress.models.file_model import FileModel
from autocompress.runtimes import OnnxRuntime, external_weights
from autocompress.runtimes.onnx_file import is_in_float
from autocompress.techniques.float16 import Float16
from autocompress.techniques.int8_dynamic import Int8Dynamic
from autocompress.techniques.int8_static import Int8Static

RUNTIME = OnnxRuntime()
X = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
Y = X[:, :3].argmax(1)
SHAPES = {"channels last": (8, 8, 8), "recurrent": (5, 16)}


def fitted(path: Path, inputs: object = None, task: Task | None = None, outputs: tuple[str, ...] = ()) -> FileModel:
    model = FileModel.read(path).fitted(task, inputs, (), outputs).model
    assert isinstance(model, FileModel)
    return model


def items(kind: str) -> np.ndarray:
    shape = SHAPES.get(kind, (16,))
    return np.random.default_rng(2).standard_normal((40, *shape)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("technique", [Float16, Int8Dynamic, Int8Static])
def test_every_precision_technique_works_on_files_of_every_exporter(kind: str, technique: type, tmp_path: Path) -> None:
    x = items(kind)
    found = FileModel.read(saved(KINDS[kind](), tmp_path / "net.onnx")).fitted(
        Task(test=(x, np.zeros(len(x), dtype=np.int64))), None, (), ()
    )
    files = found.model.export(RUNTIME, found.example, tmp_path / "out" / "model.onnx")
    assert files.baseline.path.read_bytes() == (tmp_path / "net.onnx").read_bytes()
    first = first_options(technique.choices)
    if "convolutions" in first:
        first["convolutions"] = True
    assert found.task is not None
    context = Context(found.task, found.example, found.task.calibration, tmp_path)
    if (kind, technique) == ("branching", Int8Dynamic):
        # onnxruntime's quantizer does not see that a branch reads a product, and puts the branch before it
        with pytest.raises(ArtifactError, match="topologically sorted"):
            technique().apply(files.start, first, context)
        return
    small = technique().apply(files.start, first, context)
    # static int8 does not cover recurrent layers
    least = 1.0 if (kind, technique) == ("recurrent", Int8Static) else 0.75 if technique is Float16 else 0.55
    assert small.size_bytes < least * files.start.size_bytes
    assert [one.name for one in small.outputs] == [one.name for one in files.baseline.outputs]
    assert [one.dtype for one in small.outputs] == [one.dtype for one in files.baseline.outputs]
    feed = found.example.arrays
    wanted = RUNTIME.load(files.baseline, 1, {}).run(feed)
    for one, other in zip(wanted, RUNTIME.load(small, 1, {}).run(feed), strict=True):
        assert np.abs(one.astype(float) - other.astype(float)).max() < 0.2 * np.abs(one.astype(float)).max()


def test_facts_come_from_the_graph(tmp_path: Path) -> None:
    example = FileModel.read(saved(mlp(), tmp_path / "mlp.onnx")).fitted(None, None, (), ())
    facts = example.model.facts(example.example)
    assert facts.is_file
    assert facts.family is Family.MLP
    assert (facts.parameters, facts.macs) == (16 * 64 + 64 * 3, 16 * 64 + 64 * 3)
    assert [(layer.name, layer.type, layer.kind) for layer in facts.layers] == [
        ("body.0", "Linear", Kind.LINEAR), ("head", "Linear", Kind.LINEAR),
    ]  # fmt: skip
    assert facts.layers[0].detail == {"in": 16, "out": 64}
    assert set(facts.weights) == {"body.0", "head"}
    assert type(facts).from_json(facts.to_json()) == facts


def test_facts_of_convolutions_and_recurrent_layers(tmp_path: Path) -> None:
    made = FileModel.read(saved(channels_last(), tmp_path / "conv.onnx")).fitted(None, None, (), ())
    facts = made.model.facts(made.example)
    assert facts.family is Family.CNN
    assert facts.layers[0].macs == 64 * 32 * 8 * 9
    assert facts.layers[0].output_shape == (32, 8, 8)
    made = FileModel.read(saved(recurrent(), tmp_path / "rnn.onnx")).fitted(None, None, (), ())
    facts = made.model.facts(made.example)
    assert facts.family is Family.RNN
    assert facts.layers[0].macs == 5 * 256 * (16 + 64)
    assert facts.layers[0].input_shape == (5, 16)


def test_layers_named_by_weight_or_node_stay_in_float(tmp_path: Path) -> None:
    model = fitted(saved(mlp(), tmp_path / "net.onnx"))
    made = FileModel.read(tmp_path / "net.onnx").fitted(None, None, (), ())
    for pattern in ("body.0", "body", "body.0.weight", "first"):
        require_layers(model.layer_names, [pattern], "keep_float")
        files = made.model.export(RUNTIME, made.example, tmp_path / "out" / "model.onnx", [pattern])
        graph = onnx.load(files.start.path).graph
        assert [node.op_type for node in graph.node if is_in_float(node)] == ["MatMul"]
    with pytest.raises(ProfileError, match=r"Did you mean 'body\.0'"):
        require_layers(model.layer_names, ["bodi.0"], "keep_float")


def test_weights_in_a_file_beside_it_are_read(tmp_path: Path) -> None:
    made = FileModel.read(beside(mlp(), tmp_path / "net.onnx", "weights.bin")).fitted(None, None, (), ())
    files = made.model.export(RUNTIME, made.example, tmp_path / "out" / "model.onnx")
    assert files.baseline.files == ("model.onnx",)
    assert files.baseline.size_bytes > 4 * 16 * 64


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "missing.bin"])
def test_weights_are_read_from_nowhere_else(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"0" * 9000)
    (tmp_path / "inside").mkdir()
    path = beside(mlp(), tmp_path / "inside" / "net.onnx", location)
    with pytest.raises(ArtifactError, match="not in its folder" if location != "missing.bin" else "not there"):
        FileModel.read(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = beside(mlp(), tmp_path / "inside" / "net.onnx", "weights.bin")
    (tmp_path / "inside" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "inside" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ArtifactError, match="not in its folder"):
        FileModel.read(path)


def test_weights_that_one_file_cannot_hold_stay_in_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_weights, "ONE_FILE_BYTES", 500)
    path = beside(mlp(), tmp_path / "net.onnx", "weights.bin")
    whole = onnx.load(path)
    model = fitted(path, {"x": X[:4]})
    assert external_weights.has_references(model.source)
    assert external_weights.has_references(model.form.model)
    example = model.fitted(None, {"x": X[:4]}, (), ()).example
    facts = model.facts(example)
    assert facts.parameters == sum(int(np.prod(tensor.dims)) for tensor in whole.graph.initializer if len(tensor.dims))
    files = model.export(RUNTIME, example, tmp_path / "run" / "model.onnx")
    # the graphs of baseline and start share their weights
    assert len(files.baseline.files) == len(files.start.files) == 2
    assert len(list((tmp_path / "run").iterdir())) == 3
    (tmp_path / "small").mkdir()
    settings = first_options(Int8Dynamic.choices)
    small = Int8Dynamic().apply(files.start, settings, Context(None, example, None, tmp_path / "small"))
    wanted, found = (RUNTIME.load(one, 1, {}).run({"x": X})[0] for one in (files.baseline, small))
    assert np.abs(wanted - found).max() < 0.05 * np.abs(wanted).max()


def test_weights_that_one_file_cannot_hold_must_be_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_weights, "ONE_FILE_BYTES", 500)
    model = mlp()
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    with pytest.raises(ModelError, match="of weights in double, and where one file does not hold them only weights"):
        FileModel.read(beside(model, tmp_path / "net.onnx", "weights.bin"))


def newer_than_known() -> onnx.ModelProto:
    return mlp(ir_version=99)


def with_texts() -> onnx.ModelProto:
    made = mlp()
    made.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    return made


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 no model at all", "not a whole ONNX model|no graph"),
        (mlp().SerializeToString()[:-700], "not a whole ONNX model"),
        (newer_than_known().SerializeToString(), "(?i)ir.version"),
        (already_int8().SerializeToString(), "already quantized .1 DynamicQuantizeLinear, 1 MatMulInteger"),
        (with_a_custom_operator().SerializeToString(), "Foo"),
        (classifier_with_zipmap().SerializeToString(), "'maps' is a sequence, not a tensor"),
        (with_texts().SerializeToString(), "holds string values"),
    ],
)
def test_a_bad_file_is_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(AutocompressError, match=says) as raised:
        fitted(tmp_path / "net.onnx")
    assert raised.value.exit_code == 2
    assert "net.onnx" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_outputs_that_are_no_tensors_can_be_left_out(tmp_path: Path) -> None:
    made = FileModel.read(saved(classifier_with_zipmap(), tmp_path / "net.onnx")).fitted(None, None, (), ("label",))
    files = made.model.export(RUNTIME, made.example, tmp_path / "out" / "model.onnx")
    assert [one.name for one in files.baseline.outputs] == ["label"]
    assert "ZipMap" not in RUNTIME.contents(files.baseline).operators
    assert "with the outputs label" in " ".join(made.preparation)


def test_data_go_to_the_inputs_by_name_or_place(tmp_path: Path) -> None:
    path = saved(mlp(), tmp_path / "net.onnx")
    for data in ((X, Y), ({"x": X, "other": X}, Y)):
        made = FileModel.read(path).fitted(Task(test=data), None, (), ())
        assert set(made.example.arrays) == {"x"}
    assert made.left_out == ("Columns that the file does not take are left out: other.",)
    with pytest.raises(DataError, match="the file needs 'x', which no column gives"):
        FileModel.read(path).fitted(Task(test=({"z": X}, Y)), None, (), ())
    with pytest.raises(DataError, match="has shape"):
        FileModel.read(path).fitted(Task(test=(X[:, :5], Y)), None, (), ())
    with pytest.raises(DataError, match="the model takes float32"):
        FileModel.read(path).fitted(Task(test=(X.astype(np.int64), Y)), None, (), ())


def test_free_axes_need_a_size_and_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    free = recurrent()
    free.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "steps"
    path = saved(free, tmp_path / "free.onnx")
    with pytest.raises(FreeDimensionError, match="steps"):
        fitted(path)
    assert FileModel.read(path).fitted(None, "1x7x16", (), ()).example.arrays["x"].shape == (1, 7, 16)
    fixed = FileModel.read(saved(with_a_fixed_batch(), tmp_path / "fixed.onnx")).fitted(Task(test=(X, Y)), None, (), ())
    assert fixed.example.batch == 4
    assert fixed.model.facts(fixed.example).macs == 16 * 64 + 64 * 3


def test_a_text_that_names_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(AutocompressError, match=r"neither a torch.nn.Module nor the name of a .onnx file"):
        as_model("resnet")
    with pytest.raises(AutocompressError, match="does not exist"):
        as_model(str(tmp_path / "missing.onnx"))
