"""The palettes of all layers of a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Setting
from autocompress.core.source import Split
from autocompress.core.technique import Context
from autocompress.errors import TechniqueError
from autocompress.packing.allocation import Offer, OutputDivergence, allocated
from autocompress.packing.clustering import Clusters, clustered
from autocompress.packing.layer_weights import LayerWeight, layer_weights
from autocompress.packing.palette_settings import ALLOCATION, ENTRIES, GROUPS, LAYER_BYTES, MEASURED
from autocompress.packing.rounded_weights import Whole, as_whole_numbers
from autocompress.packing.second_moments import second_moments
from autocompress.runtimes.palette_storage import Palette

# passes over a layer whose palette is kept, and over one that is only compared
PASSES, COMPARED_PASSES = 4, 1
# numbers of entries that layers are offered, from an eighth to eight times as many as are asked for on average
OFFERED = (2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 128, 256)
LEAST, MOST = 0.5, 4
# parts in which progress is told
PARTS = 100
# items on which the divergence of the outputs is measured
ITEMS = 64


@dataclass(frozen=True)
class Asked:
    """Entries of each layer, or on average where they are `allocated` by measurements, and groups."""

    entries: int
    groups: int = 1
    allocated: bool = False


def palettes_by(
    model: onnx.ModelProto,
    artifact: Artifact,
    settings: Mapping[str, Setting],
    samples: int,
    context: Context,
    name: str,
) -> dict[str, Palette]:
    """What `palettes_for` gives for the settings of a technique and so many calibration items.

    `name` is the technique's.

    Raises:
        TechniqueError: without calibration data.
    """
    if context.calibration is None:
        raise TechniqueError("needs calibration data, and there are none.", where=name)
    measured = settings[ALLOCATION.name] == MEASURED
    asked = Asked(int(settings[ENTRIES.name]), int(settings[GROUPS.name]), measured)
    return palettes_for(model, artifact, context.calibration.first(samples), asked, LAYER_BYTES, context.on_step)


def require_some(palettes: Mapping[str, Palette], name: str) -> None:
    """Raise TechniqueError, for a technique of this name, where there is no palette."""
    if not palettes:
        raise TechniqueError("found no weight in this model that gets smaller by it.", where=name)


def palettes_for(
    model: onnx.ModelProto,
    artifact: Artifact,
    calibration: Split,
    asked: Asked,
    layer_bytes: int,
    on_step: Callable[[int, int, float], None],
) -> dict[str, Palette]:
    """Palettes by names of weights, of those that get smaller though each adds `layer_bytes`.

    `model` is that of the artifact; weights in float are stored in whole numbers in it afterwards (see
    `as_whole_numbers`).
    """
    found_layers = layer_weights(model.graph)
    moments = second_moments(artifact, found_layers, calibration)
    layers, whole = as_whole_numbers(model, found_layers)
    work = _Progress(on_step, sum(layer.size for layer in layers) * (1 + len(OFFERED) * asked.allocated))
    entries = {layer.tensor: asked.entries for layer in layers}
    if asked.allocated:
        divergence = OutputDivergence(model, list(entries), artifact, calibration.first(ITEMS))
        entries = _allocated(layers, whole, moments, asked, divergence, work)
    found: dict[str, Palette] = {}
    for layer in layers:
        clusters = Clusters(entries[layer.tensor], asked.groups, PASSES)
        made = clustered(layer, whole[layer.tensor], moments.get(layer.tensor), clusters)
        if made.stored_bytes + layer_bytes < layer.size:
            found[layer.tensor] = made
        work.done(layer.size)
    return found


def _allocated(
    layers: Sequence[LayerWeight],
    whole: Whole,
    moments: Mapping[str, torch.Tensor],
    asked: Asked,
    divergence: OutputDivergence,
    work: _Progress,
) -> dict[str, int]:
    """The entries of each layer, in the bytes that as many in all of them would take."""
    offers: dict[str, list[Offer]] = {}
    most_bytes = 0
    counts = {asked.entries, *(one for one in OFFERED if LEAST * asked.entries <= one <= MOST * asked.entries)}
    for layer in layers:
        offers[layer.tensor] = []
        for count in sorted(counts):
            clusters = Clusters(count, asked.groups, COMPARED_PASSES)
            made = clustered(layer, whole[layer.tensor], moments.get(layer.tensor), clusters)
            moved = divergence.of({layer.tensor: made.values()})
            offers[layer.tensor].append(Offer(count, made.stored_bytes, moved))
            most_bytes += made.stored_bytes if count == asked.entries else 0
        work.done(layer.size * len(OFFERED))
    return allocated(offers, most_bytes)


class _Progress:
    """Tells how much of some work is done, in any unit, and how long the rest takes."""

    def __init__(self, on_step: Callable[[int, int, float], None], amount: int) -> None:
        self._on_step, self._amount, self._done = on_step, max(1, amount), 0
        self._began = time.monotonic()

    def done(self, amount: int) -> None:
        """Tell that so much more is done."""
        self._done += amount
        left = (time.monotonic() - self._began) / self._done * (self._amount - self._done)
        self._on_step(PARTS * self._done // self._amount, PARTS, max(0.0, left))
