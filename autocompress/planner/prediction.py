"""What a quantization will make of the whole model, from what it made of chains of the model's dominant layers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from autocompress.facts import Facts, Kind, LayerFact
from autocompress.probes import ChainProbe, Probe

# bytes of a value in float32 and in int8, and of a channel's scale and zero point
FLOAT_BYTES, NARROW_BYTES, SCALE_BYTES = 4, 1, 5
# linear layers inside what torch counts as one part
INSIDE = {Kind.ATTENTION: 4}


@dataclass(frozen=True)
class Whole:
    """The model as it is: latency in ms and size in bytes of its file."""

    latency_ms: float
    size_bytes: int


def predict_latency(facts: Facts, kinds: Collection[Kind], probe: Probe, chains: ChainProbe, whole: Whole) -> float:
    """Latency as a share of the model's, where layers of these kinds change as the chains did and all else stays.

    How much of the model's time these layers take follows from their MACs at the speed of the chains.
    """
    macs = sum(layer.macs for layer in facts.layers if layer.kind in kinds)
    covered = min(1.0, macs * chains.latency_ms / chains.macs / whole.latency_ms)
    return 1 - covered * (1 - (probe.ratio or 1.0))


def predict_size(facts: Facts, kinds: Collection[Kind], probe: Probe, chains: ChainProbe, whole: Whole) -> float:
    """Size as a share of the model's: weights of these kinds in one byte, a scale for each of their channels, and for
    each layer what the chains' file has grown by."""
    saved = FLOAT_BYTES - NARROW_BYTES
    grown = (probe.size_ratio or 1.0) * chains.size_bytes - (chains.size_bytes - saved * chains.weights)
    per_channel = SCALE_BYTES if probe.settings.get("per_channel") else 0
    per_layer = max(0.0, grown - per_channel * chains.channels) / chains.layers
    layers = [layer for layer in facts.layers if layer.kind in kinds]
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
