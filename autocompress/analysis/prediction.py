"""Predicts a quantized model's latency and size from microbenchmarks of its dominant layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from autocompress.core.facts import Facts, Kind, LayerFact
from autocompress.core.probes import MicrobenchmarkProbe, Probe

# bytes of a value in float32, and of a channel's scale and zero point
FLOAT_BYTES, SCALE_BYTES = 4, 5
# how many linear layers a module contains that torch counts as one
INSIDE = {Kind.ATTENTION: 4}
# parts of the names of operators that do the work of these kinds of layers
OPERATORS: Mapping[Kind, tuple[str, ...]] = {
    Kind.CONVOLUTION: ("Conv",),
    Kind.LINEAR: ("MatMul", "Gemm"),
    Kind.ATTENTION: ("MatMul", "Gemm", "Attention"),
    Kind.RECURRENT: ("LSTM", "GRU", "RNN"),
}


@dataclass(frozen=True)
class BaselineFigures:
    """Figures of the unchanged model: latency in ms, file size in bytes, shares of time by operator type."""

    latency_ms: float
    size_bytes: int
    operators: Mapping[str, float] = field(default_factory=dict)


def predict_latency(
    facts: Facts,
    kinds: Collection[Kind],
    probe: Probe,
    microbenchmarks: MicrobenchmarkProbe,
    whole: BaselineFigures,
    in_float: Collection[str] = (),
) -> float:
    """Predicted latency as a share of the model's, when layers of these kinds are quantized.

    They are taken to change as the microbenchmarks did; everything else stays, including the layers in `in_float`.
    Their share of the model's time is that of their operators; where those were not timed it follows from the layers'
    MACs at the speed of the microbenchmarks.
    """
    macs = sum(layer.macs for layer in facts.layers if layer.kind in kinds)
    kept = sum(layer.macs for layer in facts.layers if layer.kind in kinds and layer.name in in_float)
    if whole.operators:
        names = {name for kind in kinds for name in OPERATORS.get(kind, ())}
        share = sum(share for type_, share in whole.operators.items() if any(name in type_ for name in names))
    else:
        share = min(1.0, macs * microbenchmarks.latency_ms / microbenchmarks.macs / whole.latency_ms)
    return 1 - share * (1 - kept / max(1, macs)) * (1 - (probe.ratio or 1.0))


def predict_size(
    facts: Facts,
    kinds: Collection[Kind],
    probe: Probe,
    microbenchmarks: MicrobenchmarkProbe,
    whole: BaselineFigures,
    in_float: Collection[str] = (),
    value_bytes: float = 1,
) -> float:
    """Predicted file size as a share of the model's, when layers of these kinds are quantized.

    Weights take `value_bytes` each, every output channel a scale, and every layer what the file of the microbenchmarks
    grew by per layer.
    """
    saved = FLOAT_BYTES - value_bytes
    grown = (probe.size_ratio or 1.0) * microbenchmarks.size_bytes - (
        microbenchmarks.size_bytes - saved * microbenchmarks.weights
    )
    per_channel = SCALE_BYTES if probe.settings.get("per_channel") else 0
    per_layer = max(0.0, grown - per_channel * microbenchmarks.channels) / microbenchmarks.layers
    layers = [layer for layer in facts.layers if layer.kind in kinds and layer.name not in in_float]
    after = float(whole.size_bytes)
    for layer in layers:
        channels = _channels(layer)
        after -= saved * max(0, layer.parameters - channels)
        after += per_channel * channels + per_layer * INSIDE.get(layer.kind, 1)
    return max(0.0, after) / whole.size_bytes


def predict_packed_size(
    facts: Facts,
    kinds: Collection[Kind],
    before: tuple[float, float],
    weight_bytes: float,
    layer_bytes: float,
    whole: BaselineFigures,
    in_float: Collection[str] = (),
) -> float:
    """Predicted file size as a share of the model's, when quantized weights are stored in fewer bytes.

    `before` is the share that the file takes without that, and the bytes of a weight in it. Each layer adds
    `layer_bytes`.
    """
    share, value_bytes = before
    after = share * whole.size_bytes
    for layer in facts.layers:
        if layer.kind in kinds and layer.name not in in_float:
            saved = (value_bytes - weight_bytes) * max(0, layer.parameters - _channels(layer))
            # layers that get no smaller stay as they are
            after -= max(0.0, saved - layer_bytes * INSIDE.get(layer.kind, 1))
    return max(0.0, after) / whole.size_bytes


def _channels(layer: LayerFact) -> int:
    """The number of the layer's outputs, each with a bias that is not quantized."""
    if layer.kind is Kind.EMBEDDING:
        return 0
    return layer.detail.get("out", layer.output_shape[-1] if layer.output_shape else 0)
