from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from autocompress.core.artifact import Artifact
from autocompress.core.output_kinds import OutputFact
from autocompress.core.plan import Setting
from autocompress.core.runtime import align
from autocompress.core.search_space import first_options
from autocompress.core.task import Task
from autocompress.core.technique import Context
from autocompress.data.output_recognition import kinds_of
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model, save_model
from autocompress.simulation.graph_module import GraphModule
from autocompress.techniques import Int8Dynamic, Int8Static, QuantizationAwareTraining
from autocompress.testing.finish_technique_suite import context_for
from autocompress.testing.networks import Exports, labelled
from autocompress.training import recovery
from autocompress.training.agreement import agreement, layer_gaps, require_agreement
from autocompress.training.file_training import (
    FileModule,
    Learned,
    file_example,
    step_seconds,
    student_of,
    train_file,
)
from autocompress.training.recovery import Files
from autocompress.training.schedule import Schedule

SHORT: dict[str, Setting] = {
    **first_options(QuantizationAwareTraining.choices), "steps": 30, "batch": 16, "ranges": "learned",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """The small convolutional network as a float file and in static int8, with what a technique gets."""

    unquantized: Artifact
    quantized: Artifact
    context: Context

    def within(self, folder: Path) -> Context:
        """The context with another folder, and a shared one beside it."""
        for name in ("own", "shared"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return replace(self.context, folder=folder / "own", shared=folder / "shared")

    @property
    def task(self) -> Task:
        """Random items and labels."""
        assert self.context.task is not None
        return self.context.task

    def student(self, learned: Learned) -> FileModule:
        return student_of(self.quantized, self.context.example, learned)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Made:
    folder = tmp_path_factory.mktemp("made")
    (folder / "named").mkdir()
    exported = exports(OnnxRuntime(), "cnn")
    named = OnnxRuntime().export(exported.module, exported.example, folder / "named" / "float.onnx", named=True)
    context = context_for("cnn", folder / "quantized", named)
    return Made(named, Int8Static().apply(named, first_options(Int8Static.choices), context), context)


def stored(artifact: Artifact) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(artifact.path).graph.initializer}


def weights_of(artifact: Artifact) -> list[np.ndarray]:
    return [array for array in stored(artifact).values() if array.dtype == np.int8 and array.ndim > 1]


def scales_of(artifact: Artifact) -> list[bytes]:
    graph, arrays = onnx.load(artifact.path).graph, stored(artifact)
    return [arrays[node.input[1]].tobytes() for node in graph.node if node.op_type == "QuantizeLinear"]


def kinds_in(made: Made, student: FileModule) -> Mapping[str, OutputFact]:
    return kinds_of(file_example(made.context.example, student), student, made.task)


def test_training_brings_weights_of_four_bits_closer_to_the_float_file(made: Made, tmp_path: Path) -> None:
    student, files = made.student(Learned(bits=4)), Files(tmp_path / "training.pt")
    # random labels teach nothing
    schedule = Schedule(60, 16, 0, 0.01, views=10, weight_decay=0.0, soft_weight=1.0)
    teacher = GraphModule(load_model(made.unquantized.path))
    (images,), _ = made.task.train.read(range(48))

    def gap() -> float:
        with torch.no_grad():
            found, wanted = (one(input=torch.from_numpy(images))["output"] for one in (student, teacher))
        return float((found - wanted).norm())

    before = gap()
    train_file(student, made.unquantized, made.task, made.context.example, schedule, files)
    assert gap() < 0.9 * before


def test_training_that_harms_leaves_the_file_as_it_was(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = made.student(Learned())
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    scores = iter([0.9, *([0.8] * 16)])
    monkeypatch.setattr(recovery, "score_module", lambda *_: next(scores))
    schedule, files = Schedule(8, 16, 0, 0.01, weight_decay=0.0), Files(tmp_path / "training.pt")
    found = train_file(student, made.unquantized, made.task, made.context.example, schedule, files)
    assert next(scores, None) is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.state_dict().items())


def test_weights_of_four_bits_are_stored_in_sixteen_levels(made: Made, tmp_path: Path) -> None:
    result = QuantizationAwareTraining().apply(made.quantized, {**SHORT, "bits": 4}, made.within(tmp_path))
    assert max(len(np.unique(weight)) for weight in weights_of(result)) <= 16
    assert max(len(np.unique(weight)) for weight in weights_of(made.quantized)) > 16
    assert result.size_bytes <= 1.02 * made.quantized.size_bytes


def test_a_training_that_was_broken_off_goes_on_to_the_same_bytes(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    technique = QuantizationAwareTraining()
    wanted = technique.apply(made.quantized, SHORT, made.within(tmp_path / "whole"))
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)

    def stop_in_the_middle(step: int, _steps: int, _left: float) -> None:
        if step == 12:
            raise KeyboardInterrupt

    context = made.within(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        technique.apply(made.quantized, SHORT, replace(context, on_step=stop_in_the_middle))
    # the builder empties the finish's own folder before it begins again
    assert not list(context.folder.iterdir())
    steps: list[int] = []
    found = technique.apply(made.quantized, SHORT, replace(context, on_step=lambda step, *_: steps.append(step)))
    assert steps[0] == 13
    assert found.path.read_bytes() == wanted.path.read_bytes()
    assert context.shared is not None
    # what is left are the teacher's answers
    assert [path.name[:7] for path in context.shared.iterdir()] == ["teacher"]


@pytest.mark.parametrize("ranges", ["fixed", "learned"])
def test_ranges_are_learned_where_the_setting_says_so(made: Made, tmp_path: Path, ranges: str) -> None:
    result = QuantizationAwareTraining().apply(made.quantized, {**SHORT, "ranges": ranges}, made.within(tmp_path))
    assert (scales_of(result) == scales_of(made.quantized)) == (ranges == "fixed")
    pairs = zip(weights_of(result), weights_of(made.quantized), strict=True)
    assert any(not np.array_equal(one, other) for one, other in pairs)


def test_the_written_file_and_the_module_agree(made: Made, tmp_path: Path) -> None:
    student = made.student(Learned(bits=4))
    written = save_model(student.graph.write_to(load_model(made.quantized.path)), tmp_path / "written.onnx")
    split = made.task.validation
    assert split is not None
    found = agreement(student.graph, written, split, made.task, kinds_in(made, student))
    assert found.holds
    assert found.items == found.answers == 48
    assert found.same is not None
    assert found.same >= 47 / 48


def test_where_they_differ_the_layer_is_named(made: Made, tmp_path: Path) -> None:
    student, split = made.student(Learned()), made.task.validation
    assert split is not None
    other = GraphModule(load_model(made.quantized.path))
    changed = other.layers()[-1].weight
    with torch.no_grad():
        changed.value.mul_(-30)
        changed.scale.mul_(30)
    written = save_model(other.write_to(load_model(made.quantized.path)), tmp_path / "written.onnx")
    found = agreement(student.graph, written, split, made.task, kinds_in(made, student))
    assert not found.holds
    (images,), _ = made.task.val.read(range(16))
    gaps = layer_gaps(student.graph, written, {"input": images}, made.unquantized)
    # what the layers before it give is the same
    assert {one.name: one.levels for one in gaps}["stem.0"] < 0.1
    with pytest.raises(TechniqueError, match=r"does not compute what was trained: .*behind head") as caught:
        require_agreement(found, gaps, "training")
    assert caught.value.where == "training"


def test_a_step_is_timed(made: Made) -> None:
    seconds = step_seconds(made.quantized, made.unquantized, made.task, made.context.example, 16, Learned())
    assert 0 < seconds < math.inf


def test_what_it_needs_is_said(made: Made, tmp_path: Path) -> None:
    context, technique = made.within(tmp_path), QuantizationAwareTraining()
    for lacking, message in (
        (replace(context, task=replace(made.task, train=None)), "training data"),
        (replace(context, task=None), "training data"),
        (replace(context, unquantized=None), "float file"),
    ):
        with pytest.raises(TechniqueError, match=message):
            technique.apply(made.quantized, SHORT, lacking)
    with pytest.raises(TechniqueError, match="quantized"):
        technique.apply(made.unquantized, SHORT, context)


def test_it_computes_in_float32_whatever_is_asked_for(made: Made) -> None:
    student = made.student(Learned())
    (images,), _ = made.task.val.read(range(4))
    with torch.no_grad():
        wanted = student(torch.from_numpy(images))["output"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = student(input=torch.from_numpy(images))["output"]
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("network", "layers"), [("encoder", {"layers.0.up", "layers.3.up"}), ("lstm", set())], ids=["encoder", "lstm"]
)
def test_a_file_of_dynamic_int8_is_trained_and_computes_what_was_learned(
    network: str, layers: set[str], exports: Exports, tmp_path: Path
) -> None:
    exported = exports(OnnxRuntime(), network)
    named = OnnxRuntime().export(exported.module, exported.example, tmp_path / "float.onnx", named=True)
    context = context_for(network, tmp_path / "quantized", named)
    quantized = Int8Dynamic().apply(named, first_options(Int8Dynamic.choices), context)
    (tmp_path / "trained").mkdir()
    changed: dict[str, Setting] = {"optimizer": "adamw", "ranges": "fixed", "steps": 30, "batch": 16}
    settings = {**first_options(QuantizationAwareTraining.choices), **changed}
    made = QuantizationAwareTraining().apply(quantized, settings, replace(context, folder=tmp_path / "trained"))
    before, after = (load_model(one.path).graph for one in (quantized, made))
    assert [node.op_type for node in after.node] == [node.op_type for node in before.node]
    assert made.hash != quantized.hash
    assert made.size_bytes <= 1.05 * quantized.size_bytes
    feed = align(labelled(network, 16)[0], made.inputs)
    gaps = layer_gaps(GraphModule(load_model(made.path)), made, feed, named)
    assert layers <= {gap.name for gap in gaps}
    assert max(gap.levels for gap in gaps) < 0.05
