"""Static int8: weights and activations in eight bits, with calibrated ranges (QDQ format).

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018 (affine quantization, eq. 1); how ranges are found: see `runtimes.calibrated_ranges`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Family, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import int8_space, refuse_what_does_not_pay
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.sensitivity import IN_FLOAT, layers_in_float, said_of_float
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.data.module import first_line
from autocompress.errors import TechniqueError
from autocompress.runtimes.calibrated_ranges import METHODS, calibrated_ranges
from autocompress.runtimes.external_weights import has_references
from autocompress.runtimes.float_nodes import leave_in_float, places_in_float
from autocompress.runtimes.onnx_file import compact, load_model, open_model, save_if_smaller
from autocompress.runtimes.quantizable_nodes import LINEAR_LAYERS, linear_places, names_of_types, shared_tables
from autocompress.runtimes.values_on_demand import values_on_demand, with_references
from autocompress.system.quiet import quiet

TYPES: Mapping[Setting, Any] = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
# the option of the setting `operators` that leaves everything but linear layers and embeddings in float, and all that
# these layers give
PRODUCTS = "products"
# operators whose values the quantizer rounds, without those that only pass rounded values on
COMPUTING = (
    *("Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Where", "LayerNormalization", "InstanceNormalization", "BatchNormalization"),
    *("Gather", "Resize"),
)


class Int8Static(ArtifactTechnique):
    """Quantizes weights and activations to int8 in QDQ format."""

    name: ClassVar[str] = "int8_static"
    summary: ClassVar[str] = "weights and activations in int8, ranges from calibration data"
    stage: ClassVar[Stage] = Stage.PRECISION
    effort: ClassVar[Effort] = Effort.CALIBRATION
    quantization: ClassVar[str] = "static"
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("activation", ("uint8", "int8"), describes="type of activations"),
        Choice("weight", ("int8", "uint8"), describes="type of weights"),
        Choice("per_channel", (True, False), describes="one scale per output channel of a weight"),
        Choice(
            "calibration",
            ("minmax", "percentile", "entropy", "mse"),
            structural=False,
            describes="how ranges are found",
        ),
        Choice("samples", (256, 64, 1024), structural=False, describes="calibration items"),
        Choice(
            "reduce_range", (False, True), structural=False, describes="7-bit weights, for CPUs whose int8 saturates"
        ),
        Choice("operators", (PRODUCTS,), describes="linear layers alone instead of all operators", optional=True),
        IN_FLOAT,
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = (
        {"activation": "uint8", "weight": "int8", "per_channel": True},
        {"activation": "int8", "weight": "int8", "per_channel": True},
        {"activation": "uint8", "weight": "int8", "per_channel": False},
        {"activation": "uint8", "weight": "uint8", "per_channel": False},
    )

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`: unusual settings are added in brackets."""
        given = settings[0] if settings else {}
        remarks = [
            ("int8 activations", given.get("activation") == "int8"),
            ("uint8 weights", given.get("weight") == "uint8"),
            ("per tensor", given.get("per_channel") is False),
            (f"{given.get('calibration')} ranges", given.get("calibration") in ("percentile", "entropy", "mse")),
            ("linear layers alone", given.get("operators") == PRODUCTS),
            said_of_float(given),
        ]
        return with_remarks("int8", remarks)

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """Combinations of types that pay, fastest first; MinMax, then calibration methods that cut outliers.

        In transformers, linear layers alone: there is no int8 kernel for most of what stands between them.
        """
        found = int8_space(self, {"samples": (256,)}, probes, profile)
        if facts.family is not Family.TRANSFORMER:
            return found
        return replace(found, combinations=tuple({**one, "operators": PRODUCTS} for one in found.combinations))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused without convolutions or linear layers, or when no combination of types beats float here."""
        if facts.shares.get(Kind.CONVOLUTION, 0) + facts.shares.get(Kind.LINEAR, 0) < 0.05:
            return Reason(
                "static int8 covers convolutions and linear layers, and this model does its work elsewhere.",
                "quantizable",
                f"{facts.shares.get(Kind.RECURRENT, 0):.0%} of the work is recurrent",
            )
        return refuse_what_does_not_pay("static int8", self.name, probes, profile)

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`."""
        return frozenset({Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.EMBEDDING})

    def quantizes(self, artifact: Artifact, settings: Mapping[str, Setting]) -> tuple[str, ...]:
        """See `ArtifactTechnique.quantizes`; operators that pass values on go with those before them."""
        model = load_model(artifact.path, with_weights=False)
        alone = settings.get("operators") == PRODUCTS
        return names_of_types(model, LINEAR_LAYERS if alone else COMPUTING, stored=alone)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        if context.calibration is None:
            raise TechniqueError("needs calibration data, and there are none.", where=self.name)
        model = open_model(artifact.path)
        in_parts = has_references(model)
        places = set(places_in_float(model.graph, layers_in_float(settings), self.name))
        alone = settings.get("operators") == PRODUCTS
        if alone:
            places |= set(range(len(model.graph.node))) - linear_places(model.graph)
        activation, tables = TYPES[settings["activation"]], shared_tables(model.graph)
        quantized, ranges = context.folder / "quantizing.onnx", context.folder / "ranges.json"
        ranges.unlink(missing_ok=True)
        split = context.calibration.first(int(settings["samples"]))
        try:
            with quiet("", "root", "onnxruntime"), values_on_demand(model):
                unbounded = calibrated_ranges(artifact, split, settings["calibration"], ranges, context.shared)
                in_float = _name_nodes(model, unbounded, places)
                quantize_static(
                    model,
                    quantized,
                    None,
                    quant_format=QuantFormat.QDQ,
                    activation_type=activation,
                    weight_type=TYPES[settings["weight"]],
                    per_channel=bool(settings["per_channel"]),
                    reduce_range=bool(settings["reduce_range"]),
                    nodes_to_exclude=in_float,
                    calibrate_method=METHODS[settings["calibration"]],
                    calibration_cache_path=ranges,
                    use_external_data_format=in_parts,
                    extra_options={
                        "OpTypesToExcludeOutputQuantization": LINEAR_LAYERS if alone else (),
                        "TensorQuantOverrides": {name: [{"quant_type": activation}] for name in tables},
                    },
                )
        except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
            raise TechniqueError(
                f"onnxruntime cannot quantize this model: {first_line(error)}", where=self.name
            ) from error
        ranges.unlink()
        result = with_references(quantized) if in_parts else load_model(quantized)
        if not any(node.op_type == "QuantizeLinear" for node in result.graph.node):
            raise TechniqueError("quantized nothing in this model.", where=self.name)
        leave_in_float(result, model, in_float)
        try:
            return save_if_smaller(compact(result), artifact, context.folder, self.name)
        finally:
            # until now the result may refer to weights in them
            for written in context.folder.glob(f"{quantized.name}*"):
                written.unlink()


def _name_nodes(model: onnx.ModelProto, unbounded: set[str], places: Collection[int]) -> list[str]:
    """Name every node, and list those to keep in float.

    These are the nodes at the places given, and those that read or write a tensor without bounds.
    """
    touched = []
    for place, node in enumerate(model.graph.node):
        stays = place in places or unbounded.intersection((*node.input, *node.output))
        node.name = f"node{place}"
        if stays:
            touched.append(node.name)
    return touched
