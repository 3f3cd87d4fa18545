"""Which layers break a quantization is found by measuring, and so is what each costs in float."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from autocompress.analysis.file_divergence import FileDivergence
from autocompress.analysis.node_times import float_shares, quantized_shares
from autocompress.analysis.precision_variants import Subject
from autocompress.analysis.sensitivity import measure_sensitivity
from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.output_kinds import OutputFact, OutputKind
from autocompress.core.plan import Setting
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import first_options
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.source import Array, whole
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.core.tools import Tools
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.quantizable_nodes import NodeFact, node_facts
from autocompress.techniques import Float16, Int8Dynamic, Int8Static
from autocompress.testing.fakes import FakeDevice
from autocompress.testing.networks import labelled, labelled_source, small_model

SMALL = Profile("small", budgets=(Budget.parse("size_mb", "0.6x"),))
FAST = Profile("fast", budgets=(Budget.parse("latency_ms", "0.9x"),))
ITEMS = 96
LOGITS = OutputFact(OutputKind.LOGITS, 1)


def broken(model: str) -> nn.Module:
    """A small network that computes the same with a huge spread between the channels of one layer's output.

    The weights behind that layer have the inverse spread between the values that each of their sums reads.
    """
    module = small_model(model)
    first, second = ("block.1", "block.3") if model == "cnn" else ("layers.0", "layers.2")
    one, other = module.get_submodule(first), module.get_submodule(second)
    spread = torch.exp(2.5 * torch.randn(len(one.bias), generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        one.weight *= spread.reshape(-1, *[1] * (one.weight.ndim - 1))
        one.bias *= spread
        other.weight /= spread.reshape(1, -1, *[1] * (other.weight.ndim - 2))
    return module


def subject(
    folder: Path,
    model: str,
    module: nn.Module | None = None,
    technique: ArtifactTechnique | None = None,
    **changed: Setting,
) -> Subject:
    technique = technique or Int8Static()
    example = Example(labelled(model, 4)[0], kinds={"output": LOGITS, "logits": LOGITS})
    artifact = OnnxRuntime().export(module or small_model(model), example, folder / f"{model}.onnx", named=True)
    settings = {**first_options(technique.choices), **changed}
    return Subject(technique, settings, artifact, example, whole("train", labelled_source(model, ITEMS)))


def tools(device: FakeDevice | None = None) -> Tools:
    return Tools(OnnxRuntime(), device or FakeDevice(), ())


class TimedDevice(FakeDevice):
    """Says what operators take: an int8 layer a tenth of the time, in float the second one most of it."""

    def slowest_operators(
        self, artifact: Artifact, profile: Profile, inputs: Mapping[str, Array]
    ) -> Sequence[tuple[str, str, float]]:
        nodes = onnx.load(artifact.path).graph.node
        if any(node.op_type == "QuantizeLinear" for node in nodes):
            return [(f"QGemm_{place}", "QGemm", 0.1) for place in (17, 9, 120)]
        return [("layers.2", "Gemm", 0.7), ("layers.0", "Gemm", 0.2), ("layers.4", "Gemm", 0.1)]


def test_the_layer_that_breaks_int8_comes_first_and_with_the_one_before_it_wins_all_back(tmp_path: Path) -> None:
    told: list[str] = []
    found = measure_sensitivity(subject(tmp_path, "mlp", broken("mlp")), tools(), SMALL, tell=told.append)
    # the values between the two are rounded for the layer behind, unless both are in float
    assert [layer.name for layer in found.layers[:2]] == ["layers.2", "layers.0"]
    assert found.layers[0].divergence < 0.9 * found.divergence
    assert [len(mixed.layers) for mixed in found.mixed] == [1, 2]
    assert found.mixed[1].divergence < 0.01 * found.divergence
    assert any("the outputs diverge by" in sentence for sentence in told)
    assert not found.left_out
    assert Sensitivity.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_convolution_that_breaks_int8_comes_first(tmp_path: Path) -> None:
    found = measure_sensitivity(subject(tmp_path, "cnn", broken("cnn")), tools(), SMALL)
    assert found.layers[0].name == "block.3"
    assert found.layers[0].divergence < 0.7 * found.divergence


def test_every_figure_is_that_of_the_file_that_the_plan_would_make(tmp_path: Path) -> None:
    asked = subject(tmp_path, "mlp", broken("mlp"))
    found = measure_sensitivity(asked, tools(), SMALL)
    assert {layer.name for layer in found.layers} == {"layers.0", "layers.2", "layers.4"}
    by_hand = FileDivergence(FakeDevice(), SMALL, asked.artifact, asked.example, asked.calibration)
    assert found.items == by_hand.items == ITEMS

    def made(*in_float: str) -> Artifact:
        folder = tmp_path / "-".join(("made", *in_float))
        folder.mkdir(exist_ok=True)
        settings = {**asked.settings, **({"in_float": " ".join(in_float)} if in_float else {})}
        return Int8Static().apply(asked.artifact, settings, Context(None, None, asked.calibration, folder))

    every = made()
    assert found.divergence == pytest.approx(by_hand.of(every), rel=1e-5)
    for layer in found.layers:
        alone = made(layer.name)
        assert layer.divergence == pytest.approx(by_hand.of(alone), rel=1e-5)
        assert layer.added_bytes == max(0, alone.size_bytes - every.size_bytes)
    for mixed in found.mixed:
        file = made(*mixed.layers)
        assert mixed.divergence == pytest.approx(by_hand.of(file), rel=1e-5)
        assert mixed.size == file.size_bytes / asked.artifact.size_bytes
    shared = [set(mixed.layers) for mixed in found.mixed]
    assert all(one < other for one, other in pairwise(shared))
    assert by_hand.of(asked.artifact) == 0


def test_ranges_are_calibrated_once_and_give_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    asked = replace(subject(tmp_path, "mlp"), shared=tmp_path / "shared")
    measure_sensitivity(asked, tools(), SMALL)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shared" / "ranges").iterdir()}
    assert len(kept) == 2
    hashes = []
    for number, shared in enumerate((tmp_path / "shared", None)):
        (tmp_path / str(number)).mkdir()
        context = Context(None, None, asked.calibration, tmp_path / str(number), shared=shared)
        hashes.append(Int8Static().apply(asked.artifact, asked.settings, context).hash)
    assert hashes[0] == hashes[1]
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shared" / "ranges").iterdir()} == kept
    fewer = replace(asked, settings={**asked.settings, "samples": 64})
    context = Context(None, None, fewer.calibration, tmp_path / "1", shared=tmp_path / "shared")
    Int8Static().apply(fewer.artifact, fewer.settings, context)
    assert len(list((tmp_path / "shared" / "ranges").iterdir())) == 4


def test_dynamic_int8_is_measured_in_the_same_way(tmp_path: Path) -> None:
    found = measure_sensitivity(subject(tmp_path, "mlp", broken("mlp"), Int8Dynamic()), tools(), SMALL)
    assert {layer.name for layer in found.layers} == {"layers.0", "layers.2", "layers.4"}
    assert found.layers[0].name == "layers.2"
    assert found.layers[0].divergence < 0.8 * found.divergence


def test_where_time_matters_layers_come_by_what_they_win_for_their_time(tmp_path: Path) -> None:
    found = measure_sensitivity(subject(tmp_path, "mlp", broken("mlp")), tools(TimedDevice()), FAST)
    by_name = {layer.name: layer for layer in found.layers}
    # the fake device takes 10 ms for every file
    assert [by_name[f"layers.{place}"].float_milliseconds for place in (0, 2, 4)] == pytest.approx([2.0, 7.0, 1.0])
    assert all(layer.milliseconds == pytest.approx(1.0) for layer in found.layers)
    assert by_name["layers.4"].added_milliseconds == pytest.approx(0.0)
    # no set is faster than the float file where all files take as long
    assert found.mixed == ()


def test_without_time_layers_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    found = measure_sensitivity(subject(tmp_path, "mlp"), tools(), SMALL, seconds=0.0, tell=told.append)
    assert found.layers == found.mixed == ()
    assert set(found.left_out) == {"layers.0", "layers.2", "layers.4"}
    assert "the time did not suffice to measure 3 of 3 layers" in told


def test_a_technique_that_leaves_no_layer_in_float_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TechniqueError, match="cannot leave single layers of this model in float"):
        measure_sensitivity(subject(tmp_path, "mlp", technique=Float16()), tools(), SMALL)


class Unusable(Int8Static):
    """Fails where the second layer stays in float."""

    name: ClassVar[str] = "unusable"

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        if settings.get("in_float") == "layers.2":
            raise TechniqueError("has a bad day.", where=self.name)
        return super().apply(artifact, settings, context)


def test_a_layer_whose_file_cannot_be_made_costs_the_others_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    found = measure_sensitivity(subject(tmp_path, "mlp", technique=Unusable()), tools(), SMALL, tell=told.append)
    assert {layer.name for layer in found.layers} == {"layers.0", "layers.4"}
    assert any("layers.2 in float: has a bad day." in sentence for sentence in told)


def fact(name: str, operator: str, outputs: Sequence[str], fused: Sequence[str] = ()) -> NodeFact:
    return NodeFact(name, operator, tuple(outputs), tuple(fused), (), 0, 0.0)


def test_times_of_fused_nodes_are_found_by_name_and_by_order() -> None:
    nodes = [fact("a", "Conv", ["x"], ["y"]), fact("b", "Conv", ["z"]), fact("sum", "Add", ["y"])]
    profiled = [("y_nchwc", "Conv", 0.5), ("z_nchwc", "Conv", 0.3), ("sum", "Add", 0.1), ("zz_nchwc", "Conv", 0.1)]
    assert float_shares(nodes, profiled) == {"a": 0.5, "b": 0.3, "sum": 0.1}
    timed = [("_token_101", "QLinearConv", 0.2), ("_token_9", "QLinearConv", 0.6), ("Cast_3", "Cast", 0.2)]
    assert quantized_shares(nodes, timed) == {"a": 0.6, "b": 0.2}
    # with a convolution more than there are nodes, none can be told
    assert quantized_shares(nodes, [*timed, ("_token_5", "QLinearConv", 0.1)]) == {}
    assert float_shares(nodes, ()) == quantized_shares(nodes, ()) == {}


def test_facts_of_nodes_come_from_the_graph(tmp_path: Path) -> None:
    asked = subject(tmp_path, "cnn")
    graph = onnx.load(asked.artifact.path).graph
    names = Int8Static().quantizes(asked.artifact, asked.settings)
    facts: dict[str, Any] = {one.name: one for one in node_facts(graph, names)}
    assert list(facts) == ["stem.0", "block.0", "block.3", "Add", "head"]
    assert facts["block.3"].before == ("block.0",)
    assert set(facts["Add"].before) == {"stem.0", "block.3"}
    assert facts["block.0"].weights == 16 * 16 * 9
    assert facts["Add"].weights == 0
    assert facts["Add"].outputs[0] in facts["block.3"].fused
    weight = np.abs(small_model("cnn").get_parameter("head.weight").detach().numpy())
    assert facts["head"].noise == pytest.approx((2 * weight.max() / 255) ** 2 / 12 / (weight**2).mean(), rel=1e-4)


def test_whole_numbers_and_marked_nodes_are_not_quantized(tmp_path: Path) -> None:
    example = Example(labelled("transformer", 4)[0])
    artifact = OnnxRuntime().export(
        small_model("transformer"), example, tmp_path / "t.onnx", ["encoder.linear1"], named=True
    )
    names = Int8Static().quantizes(artifact, first_options(Int8Static.choices))
    assert "encoder.linear2" in names
    assert "encoder.linear1" not in names
    settings = first_options(Int8Dynamic.choices)
    dynamic = Int8Dynamic().quantizes(artifact, settings)
    assert set(dynamic) < set(names)
