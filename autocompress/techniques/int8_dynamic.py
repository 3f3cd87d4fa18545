"""Dynamic int8: weights in eight bits, activations quantized at run time; needs no data.

See onnxruntime's documentation, "Quantize ONNX models", dynamic quantization.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import int8_space, refuse_what_does_not_pay
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.sensitivity import IN_FLOAT, layers_in_float, said_of_float
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.data.module import first_line
from autocompress.errors import TechniqueError
from autocompress.runtimes.external_weights import has_references
from autocompress.runtimes.float_nodes import places_in_float
from autocompress.runtimes.onnx_file import compact, is_in_float, load_model, mark_float, open_model, save_if_smaller
from autocompress.runtimes.quantizable_nodes import names_of_types
from autocompress.runtimes.tied_embeddings import share_tied_tables, tied_tables
from autocompress.runtimes.transposed_products import turn_weights
from autocompress.runtimes.values_on_demand import values_on_demand, with_references
from autocompress.system.quiet import quiet

TYPES: Mapping[Setting, Any] = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
WITHOUT_CONVOLUTIONS = ["MatMul", "Gemm", "LSTM", "Gather", "EmbedLayerNormalization", "Attention"]
# suffix that the quantizer adds to the name of a Gemm when it splits it into a product and a sum
AS_PRODUCT = "_MatMul"
# ending of the file with the weights that one ONNX file does not hold, between two steps
BESIDE = ".weights"
QUANTIZED = ("MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "DequantizeLinear")


class Int8Dynamic(ArtifactTechnique):
    """Quantizes weights to int8 in the file, and activations at run time."""

    name: ClassVar[str] = "int8_dynamic"
    summary: ClassVar[str] = "weights in int8, activations quantized on the fly, no data needed"
    stage: ClassVar[Stage] = Stage.PRECISION
    effort: ClassVar[Effort] = Effort.NONE
    quantization: ClassVar[str] = "dynamic"
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("weight", ("int8", "uint8"), describes="type of weights"),
        Choice("per_channel", (True, False), describes="one scale per output channel of a weight"),
        Choice("convolutions", (False, True), describes="convolutions too"),
        Choice(
            "reduce_range", (False, True), structural=False, describes="7-bit weights, for CPUs whose int8 saturates"
        ),
        IN_FLOAT,
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = (
        {"weight": "int8", "per_channel": True},
        {"weight": "uint8", "per_channel": False},
    )

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`: unusual settings are added in brackets."""
        given = settings[0] if settings else {}
        remarks = [
            ("uint8 weights", given.get("weight") == "uint8"),
            ("per tensor", given.get("per_channel") is False),
            said_of_float(given),
        ]
        return with_remarks("dynamic int8", remarks)

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """Combinations of types that pay, fastest first."""
        return int8_space(self, {"convolutions": (self.covers_convolutions(facts),)}, probes, profile)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused without weights that it covers, or when it is slower than float on this device."""
        if not any(layer.kind in (Kind.LINEAR, Kind.RECURRENT, Kind.CONVOLUTION) for layer in facts.layers):
            return Reason("dynamic int8 covers no layer of this model.", "quantizable", "no layer with weights")
        return refuse_what_does_not_pay("dynamic int8", self.name, probes, profile)

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`."""
        kinds = {Kind.LINEAR, Kind.ATTENTION, Kind.RECURRENT, Kind.EMBEDDING}
        return frozenset(kinds | ({Kind.CONVOLUTION} if self.covers_convolutions(facts) else set()))

    @staticmethod
    def covers_convolutions(facts: Facts) -> bool:
        """True when leaving convolutions in float would leave most weights in float."""
        weights = {kind: sum(layer.parameters for layer in facts.layers if layer.kind is kind) for kind in Kind}
        others = weights[Kind.LINEAR] + weights[Kind.RECURRENT] + weights[Kind.EMBEDDING]
        return weights[Kind.CONVOLUTION] > others

    def quantizes(self, artifact: Artifact, settings: Mapping[str, Setting]) -> tuple[str, ...]:
        """See `ArtifactTechnique.quantizes`."""
        types = (*WITHOUT_CONVOLUTIONS, *(("Conv",) if settings["convolutions"] else ()))
        return names_of_types(load_model(artifact.path, with_weights=False), types, stored=True)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        with tempfile.TemporaryDirectory(dir=context.folder) as between:
            return self._quantized(artifact, settings, context.folder, Path(between))

    def _quantized(self, artifact: Artifact, settings: Mapping[str, Setting], folder: Path, between: Path) -> Artifact:
        """The quantized file in `folder`; files that are needed on the way go to `between`."""
        marked = _marked(artifact, layers_in_float(settings), between / "marked")
        model = _with_constants_folded(marked, between / "folded.onnx")
        turn_weights(model)
        tied = tied_tables(model)
        in_parts = has_references(model)
        quantized = between / "quantizing.onnx"
        try:
            with quiet("", "root", "onnxruntime"), values_on_demand(model):
                quantize_dynamic(
                    model,
                    quantized,
                    weight_type=TYPES[settings["weight"]],
                    per_channel=bool(settings["per_channel"]),
                    reduce_range=bool(settings["reduce_range"]),
                    op_types_to_quantize=None if settings["convolutions"] else WITHOUT_CONVOLUTIONS,
                    nodes_to_exclude=_in_float(model),
                    use_external_data_format=in_parts,
                )
        except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
            raise TechniqueError(
                f"onnxruntime cannot quantize this model: {first_line(error)}", where=self.name
            ) from error
        result = with_references(quantized) if in_parts else load_model(quantized)
        if not any(node.op_type in QUANTIZED for node in result.graph.node):
            raise TechniqueError("quantized nothing in this model.", where=self.name)
        share_tied_tables(result, tied)
        return save_if_smaller(compact(result), artifact, folder, self.name)


def _marked(artifact: Artifact, names: Sequence[str], folder: Path) -> Artifact:
    """The artifact with marks on the nodes of these names, which survive the folding of constants."""
    if not names:
        return artifact
    model = load_model(artifact.path, with_weights=False)
    places = places_in_float(model.graph, names, Int8Dynamic.name)
    marked = artifact.copy_to(folder / artifact.entry)
    marked.path.write_bytes(mark_float(model, places).SerializeToString(deterministic=True))
    return marked


def _in_float(model: onnx.ModelProto) -> list[str]:
    """Names of nodes to keep in float, including the products that the quantizer splits off from them."""
    marked = [node.name for node in model.graph.node if is_in_float(node)]
    return [*marked, *(f"{name}{AS_PRODUCT}" for name in marked)]


def _with_constants_folded(source: Artifact, between: Path) -> onnx.ModelProto:
    """The model after onnxruntime's basic optimization, which folds constants.

    Exported LSTMs have their weights behind slices and concatenations, where the quantizer does not find them.
    """
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(between)
    settings.log_severity_level = 3
    if len(source.files) > 1:
        beside = between.with_suffix(BESIDE).name
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", beside)
        # nothing is computed, and packed weights would be a copy
        settings.add_session_config_entry("session.disable_prepacking", "1")
    onnxruntime.InferenceSession(str(source.path), settings, providers=["CPUExecutionProvider"])
    return open_model(between)
