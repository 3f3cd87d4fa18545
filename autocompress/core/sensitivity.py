"""What quantizing each layer costs in accuracy, and what leaving it in float costs in time and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autocompress.core.plan import Setting
from autocompress.core.search_space import Choice, Reason

# the setting of a quantization that leaves layers in float
IN_FLOAT = Choice(
    "in_float", (), describes="layers that stay in float: names of nodes, with spaces between them", optional=True
)


def layers_in_float(settings: Mapping[str, Setting]) -> list[str]:
    """The names of the layers that settings leave in float."""
    return str(settings.get(IN_FLOAT.name, "")).split()


def said_of_float(settings: Mapping[str, Setting]) -> tuple[str, bool]:
    """What a description adds about layers in float, and whether there are any."""
    count = len(layers_in_float(settings))
    return f"{count} {'layer' if count == 1 else 'layers'} in float", count > 0


@dataclass(frozen=True)
class LayerSensitivity:
    """One node of the file that quantization acts on, by the name of its layer.

    `divergence` is how far the outputs of the file move away from the float file's when this node alone is left in
    float; the lower, the more of the loss is its own. `milliseconds` and `size_bytes` are what it takes in the
    quantized file, `float_milliseconds` and `float_bytes` in float; None where the runtime does not tell.
    """

    name: str
    operator: str
    divergence: float
    milliseconds: float | None
    float_milliseconds: float | None
    size_bytes: int
    float_bytes: int

    @property
    def added_milliseconds(self) -> float:
        """What leaving it in float costs in time; 0 where that is not known or float is as fast."""
        if self.milliseconds is None or self.float_milliseconds is None:
            return 0.0
        return max(0.0, self.float_milliseconds - self.milliseconds)

    @property
    def added_bytes(self) -> int:
        """What leaving it in float costs in bytes."""
        return max(0, self.float_bytes - self.size_bytes)


@dataclass(frozen=True)
class Mixed:
    """Layers left in float together: `divergence` of the outputs then, predicted shares of the baseline."""

    layers: tuple[str, ...]
    divergence: float
    latency: float | None = None
    size: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """The sensitivity of a model's layers to one technique with these settings.

    `divergence` is that of the outputs with every layer quantized, in the unit of `analysis.divergence`, on `items`
    calibration items. `layers` come in the order in which they are given back to float: accuracy won per time lost.
    `mixed` are nested sets of them that are worth a trial, the smallest first. `ranges` is the largest ratio of ranges
    between output channels of one weight, `outliers` that between channels of one activation. `left_out` are the nodes
    that there was no time to measure.
    """

    technique: str
    settings: Mapping[str, Setting]
    divergence: float
    items: int
    layers: tuple[LayerSensitivity, ...]
    mixed: tuple[Mixed, ...] = ()
    ranges: float | None = None
    outliers: float | None = None
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The sensitivity as a JSON object."""
        return {**asdict(self), "settings": dict(self.settings)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Sensitivity:
        """The sensitivity that `to_json` wrote."""
        layers = tuple(LayerSensitivity(**one) for one in data["layers"])
        mixed = tuple(Mixed(**{**one, "layers": tuple(one["layers"])}) for one in data["mixed"])
        left_out = tuple(data.get("left_out", ()))
        return Sensitivity(**{**data, "layers": layers, "mixed": mixed, "left_out": left_out})


def refuse_before_loss(found: Sensitivity | None) -> Reason | None:
    """The reason not to try a technique that serves quantization before that was seen to lose accuracy."""
    if found is not None:
        return None
    return Reason("it is only tried where int8 was seen to lose accuracy.", "sensitivity", "not measured yet")
