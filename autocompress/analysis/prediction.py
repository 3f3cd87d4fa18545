"""What a quantization will make of the whole model, from what it made of microbenchmarks of the model's dominant
layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from autocompress.core.facts import Facts, Kind, LayerFact
from autocompress.core.probes import MicrobenchmarkProbe, Probe

# bytes of a value in float32, and of a channel's scale and zero point
FLOAT_BYTES, SCALE_BYTES = 4, 5
# linear layers inside what torch counts as one part
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
    """The model as it is: latency in ms and size in bytes of its file, and shares of the time by type of operator."""

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
    """Latency as a share of the model's, where layers of these kinds change as the microbenchmarks did and all else
    stays, the layers `in_float` among it.

    How much of the model's time these layers take is what their operators take; where those were not timed it follows
    from the layers' MACs at the speed of the microbenchmarks.
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
    value_bytes: int = 1,
) -> float:
    """Size as a share of the model's: weights of these kinds in `value_bytes`, a scale for each of their channels, and
    for each layer what the microbenchmarks' file has grown by."""
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


def _channels(layer: LayerFact) -> int:
    """Outputs of the layer, each with a bias that stays as it is."""
    if layer.kind is Kind.EMBEDDING:
        return 0
    return layer.detail.get("out", layer.output_shape[-1] if layer.output_shape else 0)
