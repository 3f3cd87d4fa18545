"""Half precision: weights in two bytes, computed in float32, float16 or bfloat16; needs no data.

Weights alone lose next to nothing: float16 keeps eleven bits of them (IEEE 754). onnxruntime turns them back into
float32 once, when it loads the file. Arithmetic in float16: Micikevicius et al., "Mixed precision training", ICLR 2018;
in bfloat16, which has float32's range and eight bits: Kalamkar et al., "A study of BFLOAT16 for deep learning
training", 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedOperator
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probe, Probes
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import profitable_settings, refuse_what_does_not_pay
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.data.module import first_line
from autocompress.errors import TechniqueError
from autocompress.runtimes.external_weights import has_references, values_of
from autocompress.runtimes.onnx_file import compact, is_in_float, open_model, save_if_smaller
from autocompress.system.quiet import quiet

LARGEST = float(np.finfo(np.float16).max)
WEIGHTY = (Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.RECURRENT, Kind.EMBEDDING)
HALF = 0.5
# a latency budget below the measured ratio is still worth a try down to this share of it
JUST_BELOW = 0.9


class Float16(ArtifactTechnique):
    """Stores weights in half precision."""

    name: ClassVar[str] = "float16"
    summary: ClassVar[str] = "weights in half precision, no data needed"
    stage: ClassVar[Stage] = Stage.PRECISION
    effort: ClassVar[Effort] = Effort.NONE
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    value_bytes: ClassVar[int] = 2
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("arithmetic", ("float32", "float16", "bfloat16"), describes="what the weights are computed with in"),
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = tuple({"arithmetic": one} for one in choices[0].options)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        arithmetic = settings[0].get("arithmetic", "float32") if settings else "float32"
        return "half precision" if arithmetic == "float32" else f"half precision, computed in {arithmetic}"

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """The kinds of arithmetic that pay, fastest first."""
        return SettingSpace(self.choices, profitable_settings(self.probed, probes.of(self.name), profile))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused without weights, and where a budget asks for more than half precision gives."""
        if not any(layer.kind in WEIGHTY for layer in facts.layers):
            return Reason("half precision covers no layer of this model.", "quantizable", "no layer with weights")
        limits = {budget.metric: budget.limit for budget in profile.budgets if budget.relative}
        if limits.get("size_mb", 1.0) <= HALF:
            return Reason(
                "half precision leaves half of the bytes and a little more.", "size", f"{limits['size_mb']:g}x is asked"
            )
        slower = refuse_what_does_not_pay("half precision", self.name, probes, profile)
        measured = probes.of(self.name)
        if slower is not None or not measured:
            return slower
        ratio = measured[0].ratio or 0.0
        if ratio > JUST_BELOW and limits.get("latency_ms", ratio) < JUST_BELOW * ratio:
            return Reason("half precision saves hardly any time on this device.", "probe", _figures(measured))
        return None

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`."""
        return frozenset(Kind)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        model = open_model(artifact.path)
        if settings["arithmetic"] == "float32":
            _store_in_half(model.graph)
        elif has_references(model):
            raise TechniqueError(
                "computes in half precision only where one file holds graph and weights, up to 1.9 GB.",
                where=self.name,
                hint="Store the weights in half precision: arithmetic float32.",
            )
        elif settings["arithmetic"] == "float16":
            model = _computing_in_half(model, self.name)
        else:
            model = _computing_in_bfloat16(model, self.name)
        return save_if_smaller(compact(model), artifact, context.folder, self.name)


def _figures(probes: Sequence[Probe]) -> str:
    figures = (f"{probe.ratio:.2f}x computed with in {probe.settings['arithmetic']}" for probe in probes)
    return ", ".join(figures)


def _store_in_half(graph: onnx.GraphProto) -> None:
    """Store weights in float16, each followed by a cast, except for those of nodes kept in float."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    fixed |= {name for node in graph.node if is_in_float(node) for name in node.input}
    casts = []
    for tensor in graph.initializer:
        values = values_of(tensor)
        if tensor.data_type != TensorProto.FLOAT or tensor.name in fixed or values.size < 2:
            continue
        if not np.all(np.abs(values) <= LARGEST):
            # attention masks hold the lowest float, which float16 cannot hold
            continue
        name = tensor.name
        stored = f"{name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def _computing_in_half(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Convert everything to float16 that can be; inputs and outputs keep their types."""
    stay = [node.name for node in model.graph.node if is_in_float(node)]
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node{place}"
    try:
        with quiet("", "root", "onnxruntime"):
            result: onnx.ModelProto = convert_float_to_float16(
                onnx.shape_inference.infer_shapes(model), keep_io_types=True, node_block_list=stay
            )
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        raise TechniqueError(f"onnxruntime cannot convert this model: {first_line(error)}", where=name) from error
    # the converter appends its casts at the end
    OnnxModel.graph_topological_sort(result.graph, is_deterministic=True)
    return result


def _computing_in_bfloat16(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    model = _computing_in_half(model, name)
    _as_bfloat16(model.graph, weights)
    _require_kernels(model, name)
    return model


def _as_bfloat16(graph: onnx.GraphProto, weights: Mapping[str, np.ndarray]) -> None:
    """Turn everything that is in float16 into bfloat16.

    `weights` are the values by name from before they were cut to float16's range.
    """
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            _retype(tensor, weights.get(tensor.name, numpy_helper.to_array(tensor)))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                _retype(attribute.t, numpy_helper.to_array(attribute.t))
            for inner in (attribute.g, *attribute.graphs):
                _as_bfloat16(inner, weights)
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16


def _retype(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(ml_dtypes.bfloat16), tensor.name))


def _require_kernels(model: onnx.ModelProto, name: str) -> None:
    # without float16 kernels onnxruntime computes in float32; without bfloat16 kernels it fails, so it is tried here
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except (InvalidGraph, NotImplementedOperator) as error:
        missing = re.search(r"(?:implementation for|of operator) \(?(\w+)", str(error))
        what = missing.group(1) if missing else "this model"
        raise TechniqueError(f"onnxruntime has no kernel that computes {what} in bfloat16 here.", where=name) from error
