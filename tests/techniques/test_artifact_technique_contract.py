from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.facts import Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, align
from autocompress.core.search_space import first_options
from autocompress.core.source import ArraySource, Split, whole
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import PlanError, TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import TECHNIQUES, BlockwiseWeights, Float16, Int8Dynamic, Int8Static, float16
from autocompress.testing.artifact_technique_suite import (
    ArtifactTechniqueSuite,
    facts_with,
    probed,
    relative_error,
)
from autocompress.testing.networks import Exports, labelled, labelled_source


class FourAtATime(nn.Module):
    """Takes batches of four only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 96), nn.Linear(96, 5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(features.reshape(4, 24))))


class Turned(nn.Module):
    """A layer with the same bias as all its like, and what it gives in another order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        nn.init.constant_(self.layer.bias, 0.1)
        nn.init.kaiming_normal_(self.layer.weight)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        turned = torch.relu(self.layer(values)).reshape(-1, 4, 6).transpose(1, 2)
        return turned.flatten(1)


def activation_scales(artifact: Artifact) -> np.ndarray:
    """The scales of a quantized graph's activations, in the order of its nodes."""
    graph = onnx.load(artifact.path).graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    return np.array([float(weights[node.input[1]]) for node in nodes])


@pytest.fixture(scope="module")
def fixed_batch(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("fixed") / "fixed.onnx"
    artifact = OnnxRuntime().export(FourAtATime().eval(), Example(labelled("mlp", 4)[0]), path)
    assert artifact.fixed_batch == 4
    return artifact


class TestInt8Dynamic(ArtifactTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = Int8Dynamic
    covers: ClassVar[Kind] = Kind.LINEAR
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "mlp": {},
        "lstm": {},
        "transformer": {},
        "cnn": {"convolutions": True},
    }

    def test_it_needs_no_data(self, exports: Exports, tmp_path: Path) -> None:
        artifact = exports(OnnxRuntime(), "mlp").artifact
        context = Context(None, Example(()), None, tmp_path)
        assert Int8Dynamic().apply(artifact, self.settings(), context).size_bytes < artifact.size_bytes

    def test_an_lstm_shrinks_to_well_under_half(self, exports: Exports, tmp_path: Path) -> None:
        exported = exports(OnnxRuntime(), "lstm")
        result = self.apply(exported, "lstm", tmp_path / "made")
        assert result.size_bytes < 0.35 * exported.artifact.size_bytes
        operators = OnnxRuntime().contents(result).operators
        assert operators["DynamicQuantizeLSTM"] == 1
        assert "LSTM" not in operators

    def test_where_all_weights_are_in_convolutions_leaving_them_out_saves_nothing(
        self, exports: Exports, tmp_path: Path
    ) -> None:
        exported = exports(OnnxRuntime(), "cnn")
        with pytest.raises(TechniqueError, match="no smaller"):
            self.apply(exported, "cnn", tmp_path / "made", self.settings(convolutions=False))

    @pytest.mark.parametrize("kind", list(Kind))
    def test_convolutions_are_taken_in_where_most_weights_are_theirs(self, kind: Kind) -> None:
        facts = facts_with(Kind.CONVOLUTION, kind)
        grid = list(Int8Dynamic().space(facts, Probes(), Profile("any")).grid())
        weighty = (Kind.LINEAR, Kind.RECURRENT, Kind.EMBEDDING)
        assert {settings["convolutions"] for settings in grid} == {kind not in weighty}

    def test_a_model_without_weights_is_a_technique_error(self, tmp_path: Path) -> None:
        artifact = OnnxRuntime().export(nn.ReLU(), Example(labelled("mlp", 4)[0]), tmp_path / "relu.onnx")
        with pytest.raises(TechniqueError, match="quantized nothing"):
            Int8Dynamic().apply(artifact, self.settings(), self.context("mlp", tmp_path / "made"))


class TestFloat16(ArtifactTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = Float16
    covers: ClassVar[Kind] = Kind.LINEAR
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {"mlp": {}, "lstm": {}, "transformer": {}, "cnn": {}}
    share: ClassVar[float] = 0.6
    error: ClassVar[float] = 1e-3
    beyond_this_runtime: ClassVar[Sequence[Mapping[str, Setting]]] = ({"arithmetic": "bfloat16"},)

    def test_weights_are_rounded_and_computed_with_in_float32(self, exports: Exports, tmp_path: Path) -> None:
        exported = exports(OnnxRuntime(), "cnn")
        graph = onnx.load(self.apply(exported, "cnn", tmp_path / "made").path).graph
        before = onnx.load(exported.artifact.path).graph
        stored = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
        wanted = [onnx.numpy_helper.to_array(tensor) for tensor in before.initializer]
        assert len(stored) == len(wanted)
        for found, values in zip(stored, wanted, strict=True):
            assert found.dtype == (np.float16 if values.dtype == np.float32 and values.size > 1 else values.dtype)
            np.testing.assert_allclose(found.astype(np.float64), values, rtol=1e-3, atol=1e-6)
        assert [node.op_type for node in graph.node if node.op_type != "Cast"] == [n.op_type for n in before.node]

    def test_weights_beyond_the_range_of_half_precision_stay(self, tmp_path: Path) -> None:
        module = nn.Linear(24, 24)
        with torch.no_grad():
            module.bias.fill_(1e6)
        artifact = OnnxRuntime().export(module, Example(labelled("mlp", 4)[0]), tmp_path / "large.onnx")
        made = Float16().apply(artifact, self.settings(), self.context("mlp", tmp_path / "made"))
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(made.path).graph.initializer]
        assert {array.dtype.name: float(array.max()) for array in arrays if array.ndim == 1} == {"float32": 1e6}

    @pytest.mark.parametrize("name", ["mlp", "cnn"])
    def test_bfloat16_computes_what_float_does_to_its_eight_bits(
        self, exports: Exports, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = exports(OnnxRuntime(), name)
        with pytest.raises(TechniqueError, match=r"no kernel that computes (Conv|Gemm) in bfloat16"):
            self.apply(exported, name, tmp_path / "refused", {"arithmetic": "bfloat16"})
        # without kernels, onnx's own slow evaluation shows what is computed
        monkeypatch.setattr(float16, "_require_kernels", lambda model, name: None)
        made = self.apply(exported, name, tmp_path / "made", {"arithmetic": "bfloat16"})
        assert made.size_bytes < 0.6 * exported.artifact.size_bytes
        feed = align(labelled(name, 4)[0], exported.artifact.inputs)
        found, wanted = (
            np.asarray(ReferenceEvaluator(str(artifact.path)).run(None, feed)[0], np.float32)
            for artifact in (made, exported.artifact)
        )
        assert 0 < np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()

    @pytest.mark.parametrize(("limit", "refused"), [(0.25, True), (0.5, True), (0.55, False)])
    def test_it_is_refused_where_half_or_less_is_asked(self, limit: float, *, refused: bool) -> None:
        profile = Profile("small", budgets=(Budget("size_mb", limit, relative=True),))
        reason = Float16().refuses(facts_with(Kind.LINEAR), Probes(), profile)
        assert (reason is not None) == refused
        assert reason is None or reason.fact == f"{limit:g}x is asked"

    def test_it_is_refused_with_its_figures_where_it_saves_no_time(self) -> None:
        profile = Profile("fast", budgets=(Budget("latency_ms", 0.5, relative=True),))
        reason = Float16().refuses(facts_with(Kind.LINEAR), probed(Float16, [0.99, 3.0, 4.0]), profile)
        assert reason is not None
        figures = (("0.99x", "float32"), ("3.00x", "float16"), ("4.00x", "bfloat16"))
        assert reason.fact == ", ".join(f"{ratio} computed with in {arithmetic}" for ratio, arithmetic in figures)
        assert Float16().refuses(facts_with(Kind.LINEAR), probed(Float16, [0.99, 0.6, 4.0]), profile) is None


class TestBlockwiseWeights(ArtifactTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = BlockwiseWeights
    covers: ClassVar[Kind] = Kind.LINEAR
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {"mlp": {}, "transformer": {}}
    error: ClassVar[float] = 0.2

    def test_convolutions_and_recurrent_layers_are_left_to_others(self, exports: Exports, tmp_path: Path) -> None:
        for kind in (Kind.CONVOLUTION, Kind.RECURRENT):
            reason = BlockwiseWeights().refuses(facts_with(*[kind] * 5, Kind.LINEAR), Probes(), Profile("any"))
            assert reason is not None
            assert reason.fact == "17% of the weights are in them"
        with pytest.raises(TechniqueError, match="found no weight"):
            self.apply(exports(OnnxRuntime(), "cnn"), "cnn", tmp_path / "made")

    def test_what_a_weight_takes_follows_from_the_settings(self) -> None:
        technique = BlockwiseWeights()
        assert technique.weight_bytes(self.settings(bits=4, block=32)) == 0.5 + 4 / 32
        assert technique.weight_bytes(self.settings(bits=8, block=128)) == 1 + 4 / 128


class TestInt8Static(ArtifactTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = Int8Static
    covers: ClassVar[Kind] = Kind.CONVOLUTION
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {"cnn": {}, "mlp": {}}

    def test_without_calibration_data_it_is_a_technique_error(self, exports: Exports, tmp_path: Path) -> None:
        context = replace(self.context("cnn", tmp_path / "made"), calibration=None)
        with pytest.raises(TechniqueError, match="needs calibration data") as caught:
            Int8Static().apply(exports(OnnxRuntime(), "cnn").artifact, self.settings(), context)
        assert caught.value.where == "int8_static"

    def test_each_way_to_find_ranges_gives_other_bytes(self, exports: Exports, tmp_path: Path) -> None:
        exported = exports(OnnxRuntime(), "cnn")
        results = {
            method: self.apply(exported, "cnn", tmp_path / method, self.settings(calibration=method))
            for method in ("minmax", "percentile", "entropy", "mse")
        }
        assert len({result.hash for result in results.values()}) == 4
        # they find other numbers for the same graph
        assert len({str(OnnxRuntime().contents(result).operators) for result in results.values()}) == 1

    def test_a_bias_that_many_layers_share_keeps_a_deep_network_right(self, tmp_path: Path) -> None:
        # the quantizer numbers the copies that it makes of such a bias, whether or not the name is taken
        torch.manual_seed(0)
        module = nn.Sequential(*(Turned(24) for _ in range(40))).eval()
        items = np.random.default_rng(0).standard_normal((64, 24)).astype(np.float32)
        artifact = OnnxRuntime().export(module, Example((items[:1],)), tmp_path / "deep.onnx")
        weights = onnx.load(artifact.path).graph.initializer
        assert sum(list(tensor.dims) == [24] for tensor in weights) == 1
        part = whole("all", ArraySource((items,), np.zeros(64, dtype=np.int64)))
        made = Int8Static().apply(artifact, self.settings(), Context(None, Example((items[:1],)), part, tmp_path))
        (wanted,), (found,) = (
            OnnxRuntime().load(one, 1, {}).run(align((items,), one.inputs)) for one in (artifact, made)
        )
        assert relative_error(found, wanted) < 0.3

    def test_each_method_cuts_off_as_much_as_it_says(self, exports: Exports, tmp_path: Path) -> None:
        exported = exports(OnnxRuntime(), "cnn")
        widest = activation_scales(self.apply(exported, "cnn", tmp_path / "minmax"))
        cut = {
            method: activation_scales(self.apply(exported, "cnn", tmp_path / method, self.settings(calibration=method)))
            / widest
            for method in ("percentile", "entropy", "mse")
        }
        assert 0.8 < cut["percentile"].min() < 0.99
        assert cut["entropy"].min() < 0.8
        assert 0.3 < cut["mse"].min() < 0.99
        assert max(ratios.max() for ratios in cut.values()) < 1.01

    @pytest.mark.parametrize(("activation", "weight"), [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")])
    @pytest.mark.parametrize("per_channel", [True, False])
    def test_any_pair_of_types_computes_roughly_the_same(
        self, exports: Exports, tmp_path: Path, activation: str, weight: str, *, per_channel: bool
    ) -> None:
        exported = exports(OnnxRuntime(), "cnn")
        settings = self.settings(activation=activation, weight=weight, per_channel=per_channel)
        result = self.apply(exported, "cnn", tmp_path / "made", settings)
        feed = align(labelled("cnn", 32, seed=1)[0], exported.artifact.inputs)
        (wanted,) = OnnxRuntime().load(exported.artifact, 1, {}).run(feed)
        (found,) = OnnxRuntime().load(result, 1, {}).run(feed)
        assert 0 < relative_error(found, wanted) < 0.05

    def test_the_pair_of_types_that_onnxruntime_does_not_know_is_refused(
        self, exports: Exports, tmp_path: Path
    ) -> None:
        settings = self.settings(activation="int8", weight="uint8")
        with pytest.raises((PlanError, TechniqueError)):
            self.apply(exports(OnnxRuntime(), "cnn"), "cnn", tmp_path / "made", settings)

    def test_ranges_come_from_the_calibration_items(self, exports: Exports, tmp_path: Path) -> None:
        artifact = exports(OnnxRuntime(), "mlp").artifact
        inputs, targets = labelled("mlp", 48)
        assert isinstance(inputs, tuple)
        wide = self.context("mlp", tmp_path / "wide")
        small = whole("train", ArraySource((inputs[0] * 0.01,), targets))
        narrow = replace(self.context("mlp", tmp_path / "narrow"), calibration=small)
        results = [Int8Static().apply(artifact, self.settings(), context) for context in (wide, narrow)]
        feed = align(labelled("mlp", 32, seed=1)[0], artifact.inputs)
        (wanted,) = OnnxRuntime().load(artifact, 1, {}).run(feed)
        errors = [relative_error(OnnxRuntime().load(result, 1, {}).run(feed)[0], wanted) for result in results]
        # inputs a hundred times larger than any seen are cut off
        assert errors[0] < 0.1 < errors[1]

    def test_only_as_many_items_as_asked_for_are_read(self, exports: Exports, tmp_path: Path) -> None:
        source = labelled_source("mlp", 200)
        seen: set[int] = set()

        class Watched:
            def __len__(self) -> int:
                return len(source)

            def read(self, indices: list[int]) -> object:
                seen.update(indices)
                return source.read(indices)

        part = Split("train", Watched(), np.arange(200))  # type: ignore[arg-type]
        context = replace(self.context("mlp", tmp_path / "made"), calibration=part)
        Int8Static().apply(exports(OnnxRuntime(), "mlp").artifact, self.settings(samples=64), context)
        assert len(seen) == 64

    @pytest.mark.parametrize("items", [1, 3, 17])
    @pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
    def test_few_items_are_enough_to_calibrate(self, exports: Exports, tmp_path: Path, items: int, method: str) -> None:
        artifact = exports(OnnxRuntime(), "mlp").artifact
        context = self.context("mlp", tmp_path / "made", items=items)
        result = Int8Static().apply(artifact, self.settings(calibration=method), context)
        assert result.size_bytes < 0.5 * artifact.size_bytes

    @pytest.mark.parametrize("items", [3, 6])
    def test_a_fixed_batch_is_calibrated_with_full_batches(
        self, fixed_batch: Artifact, tmp_path: Path, items: int
    ) -> None:
        context = self.context("mlp", tmp_path / "made", items=items)
        for method in ("minmax", "percentile", "mse"):
            result = Int8Static().apply(fixed_batch, self.settings(calibration=method), context)
            assert result.fixed_batch == 4
            assert result.size_bytes < 0.5 * fixed_batch.size_bytes

    @pytest.mark.parametrize("kinds", [(Kind.RECURRENT,), (Kind.EMBEDDING, Kind.NORM)])
    def test_it_is_refused_where_the_work_is_elsewhere(self, kinds: tuple[Kind, ...]) -> None:
        reason = Int8Static().refuses(facts_with(*kinds), Probes(), Profile("any"))
        assert reason is not None
        assert "convolutions and linear layers" in reason.sentence

    def test_a_model_it_saves_nothing_on_is_a_technique_error(self, tmp_path: Path) -> None:
        artifact = OnnxRuntime().export(nn.ReLU(), Example(labelled("mlp", 4)[0]), tmp_path / "relu.onnx")
        with pytest.raises(TechniqueError):
            Int8Static().apply(artifact, self.settings(), self.context("mlp", tmp_path / "made"))

    def test_a_file_that_grows_is_a_technique_error(self, tmp_path: Path) -> None:
        tiny = OnnxRuntime().export(nn.Linear(24, 2), Example(labelled("mlp", 4)[0]), tmp_path / "tiny.onnx")
        with pytest.raises(TechniqueError, match="no smaller"):
            Int8Static().apply(tiny, self.settings(), self.context("mlp", tmp_path / "made"))

    @pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
    def test_a_masked_transformer_is_quantized_or_is_a_technique_error(
        self, exports: Exports, tmp_path: Path, method: str
    ) -> None:
        exported = exports(OnnxRuntime(), "transformer")
        feed = align(labelled("transformer", 64, seed=1)[0], exported.artifact.inputs)
        (wanted,) = OnnxRuntime().load(exported.artifact, 1, {}).run(feed)
        with suppress(TechniqueError):
            result = self.apply(exported, "transformer", tmp_path / "made", self.settings(calibration=method))
            (found,) = OnnxRuntime().load(result, 1, {}).run(feed)
            assert relative_error(found, wanted) < 0.1


@pytest.mark.parametrize(
    "technique",
    # what tunes or trains a quantized file is tried on one in the suites of such techniques
    [
        one
        for one in TECHNIQUES
        if issubclass(one, ArtifactTechnique) and one.stage is not Stage.TUNING and one.effort is not Effort.TRAINING
    ],
    ids=lambda technique: technique.name,
)
def test_an_artifact_in_the_same_folder_is_left_as_it_is(
    technique: type[ArtifactTechnique], exports: Exports, tmp_path: Path
) -> None:
    artifact = exports(OnnxRuntime(), "mlp").artifact.copy_to(tmp_path / f"{technique.name}.onnx")
    before = artifact.path.read_bytes()
    context = Context(None, Example(()), whole("train", labelled_source("mlp", 32)), tmp_path)
    settings = first_options(technique.choices)
    technique().apply(artifact, settings, context)
    assert artifact.path.read_bytes() == before


@pytest.mark.parametrize(
    ("technique", "settings", "words"),
    [
        (Int8Static, {}, "int8"),
        (Int8Static, {"samples": 64, "reduce_range": True}, "int8"),
        (Int8Static, {"calibration": "entropy"}, "int8 (entropy ranges)"),
        (Int8Static, {"calibration": "mse"}, "int8 (mse ranges)"),
        (Int8Static, {"activation": "int8", "per_channel": False}, "int8 (int8 activations, per tensor)"),
        (Int8Dynamic, {"convolutions": True}, "dynamic int8"),
        (Int8Dynamic, {"weight": "uint8"}, "dynamic int8 (uint8 weights)"),
        (BlockwiseWeights, {}, "4-bit weights in blocks of 32"),
        (BlockwiseWeights, {"bits": 8, "symmetric": True}, "8-bit weights in blocks of 32 (symmetric)"),
        (BlockwiseWeights, {"accuracy_level": 0}, "4-bit weights in blocks of 32 (float sums)"),
        (Float16, {"arithmetic": "float32"}, "half precision"),
        (Float16, {"arithmetic": "bfloat16"}, "half precision, computed in bfloat16"),
    ],
)
def test_what_each_does_is_said_as_people_say_it(
    technique: type[ArtifactTechnique], settings: Mapping[str, Setting], words: str
) -> None:
    first = first_options(technique.choices)
    assert technique().describe([{**first, **settings}]) == words
