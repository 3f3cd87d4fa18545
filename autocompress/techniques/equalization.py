"""Equalization: scales moved between neighbouring layers, so that eight bits fit all channels.

The float file computes the same afterwards. `cross_layer` gives the output channels of a layer and the input channels
that read them the same ranges of weights: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, eq. 11. `smooth` moves outliers of activations into the weights that read them: Xiao et al.,
"SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023, eq. 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import feeds
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.sensitivity import Sensitivity, refuse_before_loss
from autocompress.core.source import Split
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import TechniqueError
from autocompress.runtimes.channel_flow import Passage, largest_by_channel, passages
from autocompress.runtimes.graph_weights import Doubles, StoredTensors
from autocompress.runtimes.node_names import with_names
from autocompress.runtimes.observed_values import observed
from autocompress.runtimes.onnx_file import compact, load_model, save_model
from autocompress.runtimes.onnx_shapes import shapes_of

CROSS_LAYER, SMOOTH = "cross_layer", "smooth"
# items that ranges of activations are taken from, and those on which the function is compared
ITEMS, COMPARED, BATCH = 256, 32, 16
# the largest difference of an output, as a share of its largest value, that rounding in float32 explains
ROUNDING = 2e-3
# rounds over all pairs of layers, and the change of a scale below which they end
ROUNDS, SETTLED = 100, 0.01
# what is left between a channel and the bound of a ReLU6, as a factor of what was seen
ROOM = 1.25
# where one channel's range is this many times the median channel's, the median has 32 of 256 levels
LEAST_RATIO = 8.0


class Equalization(ArtifactTechnique):
    """Moves scales between layers, without changing the function."""

    name: ClassVar[str] = "equalization"
    summary: ClassVar[str] = "ranges of neighbouring layers evened out for int8"
    stage: ClassVar[Stage] = Stage.PREPARATION
    effort: ClassVar[Effort] = Effort.CALIBRATION
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    serves: ClassVar[frozenset[str]] = frozenset({"static", "dynamic"})
    value_bytes: ClassVar[int] = 4
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("method", (CROSS_LAYER, SMOOTH), structural=False, describes="which ranges are evened out"),
        Choice("alpha", (0.5, 0.75, 0.25), structural=False, describes="share of an outlier that weights take over"),
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        given = settings[0] if settings else {}
        if given.get("method") != SMOOTH:
            return "cross-layer equalization"
        return "outliers smoothed" + (f" (alpha {given['alpha']})" if given.get("alpha") != 0.5 else "")

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """The methods that the sensitivity asks for; both where it was not measured."""
        found = probes.sensitivity
        combinations: list[Mapping[str, Setting]] = []
        if found is None or _uneven_weights(found):
            combinations.append({"method": CROSS_LAYER, "alpha": 0.5})
        if found is None or _outliers(found):
            combinations += [{"method": SMOOTH, "alpha": alpha} for alpha in (0.5, 0.75)]
        return SettingSpace(self.choices, tuple(combinations))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused until int8 was seen to lose accuracy, and where ranges are even already."""
        found = probes.sensitivity
        if found is None:
            return refuse_before_loss(found)
        if _uneven_weights(found) or _outliers(found):
            return None
        granularity = "a scale per channel" if found.settings.get("per_channel") is True else "one scale"
        return Reason(
            "the ranges of channels are even enough for eight bits.",
            "sensitivity",
            f"the widest range is {_figure(found.ranges)} the median channel's in weights ({granularity}), "
            f"{_figure(found.outliers)} in activations; {LEAST_RATIO:g}x asks for it",
        )

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`: it stores nothing in fewer bytes."""
        return frozenset()

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        smooth = settings["method"] == SMOOTH
        split = context.calibration
        if split is None:
            if smooth:
                raise TechniqueError("needs calibration data, and there are none.", where=self.name)
            split = context.example.as_split()
        split = split.first(ITEMS)
        model = load_model(artifact.path)
        names = [node.name for node in model.graph.node]
        first, _ = next(feeds(split.first(2), artifact, 2))
        inside = (name for node in model.graph.node for name in node.output)
        found = passages(model.graph, shapes_of(model, first, inside))
        if not smooth:
            # a normalization has no range of weights; bounds of a ReLU6 need real data
            found = [one for one in found if one.weight and (context.calibration or not one.ceilings)]
        if not found:
            raise TechniqueError("found no two layers between which scales can be moved.", where=self.name)
        tensors = StoredTensors(model.graph)
        seen = _observe(artifact, split, found, read=smooth)
        if smooth:
            _smooth(found, tensors, seen, float(settings["alpha"]))
        else:
            _equalize(found, tensors, seen)
        tensors.write()
        path = context.folder / f"{self.name}-{artifact.hash[:8]}.onnx"
        made = save_model(with_names(compact(model), names), path)
        _require_same_function(artifact, made, split.first(COMPARED), self.name)
        return made


@dataclass(frozen=True, eq=False)
class _Seen:
    """What items gave on a passage, per channel.

    `largest` is the largest absolute value that is read, `reached` the share of a ReLU6's bound that was reached, 0
    where nothing is cut off.
    """

    largest: Doubles
    reached: Doubles

    def allowed(self, scales: Doubles) -> Doubles:
        """The scales as far as nothing else is cut off than before."""
        scales = np.maximum(scales, np.minimum(1.0, ROOM * self.reached))
        return np.where(self.reached < 1.0, scales, 1.0)


def _observe(artifact: Artifact, split: Split, found: Sequence[Passage], *, read: bool) -> list[_Seen]:
    """What the items give on each passage; what layers read only where `read` is set, since it takes time."""
    names = dict.fromkeys(reader.value for passage in found for reader in passage.readers if read)
    names |= dict.fromkeys(ceiling.value for passage in found for ceiling in passage.ceilings)
    seen = [_Seen(np.zeros(passage.size), np.zeros(passage.size)) for passage in found]
    if not names:
        return seen
    batches = (feed for feed, _ in feeds(split, artifact, BATCH))
    for values in observed(artifact, list(names), batches):
        for passage, one in zip(found, seen, strict=True):
            for reader in passage.readers if read else ():
                size = np.abs(values[reader.value])
                np.maximum(one.largest, largest_by_channel(size, reader.channels, passage.size), out=one.largest)
            for ceiling in passage.ceilings:
                share = np.maximum(values[ceiling.value], 0) / ceiling.bound
                np.maximum(one.reached, largest_by_channel(share, ceiling.channels, passage.size), out=one.reached)
    return seen


def _read_ranges(passage: Passage, tensors: StoredTensors) -> Doubles:
    """The largest weight that reads each channel."""
    ranges = np.zeros(passage.size)
    for reader in passage.readers:
        found = reader.weight.input_ranges(tensors.values(reader.weight.tensor))
        np.maximum(
            ranges, largest_by_channel(found.reshape(reader.channels.shape), reader.channels, passage.size), out=ranges
        )
    return ranges


def _smooth(found: Sequence[Passage], tensors: StoredTensors, seen: Sequence[_Seen], alpha: float) -> None:
    """Divide by s = max|X|^alpha / max|W|^(1 - alpha) per channel, by the weights as they were given."""
    scales = []
    for passage, one in zip(found, seen, strict=True):
        read = _read_ranges(passage, tensors)
        known = (one.largest > 0) & (read > 0)
        quotient = np.where(known, one.largest, 1.0) ** alpha / np.where(known, read, 1.0) ** (1 - alpha)
        scales.append(one.allowed(quotient))
    for passage, chosen in zip(found, scales, strict=True):
        passage.scale_weights(tensors, chosen)
        passage.scale_vectors(tensors, chosen)


def _equalize(found: Sequence[Passage], tensors: StoredTensors, seen: Sequence[_Seen]) -> None:
    """Divide by s = sqrt(r1 / r2), of the weights before and behind each channel, until all are equal."""
    scales = [np.ones(passage.size) for passage in found]
    for _ in range(ROUNDS):
        largest_change = 0.0
        for place, (passage, one) in enumerate(zip(found, seen, strict=True)):
            assert passage.weight is not None
            written = passage.weight.output_ranges(tensors.values(passage.weight.tensor))
            read = _read_ranges(passage, tensors)
            known = (written > 0) & (read > 0)
            step = np.sqrt(np.where(known, written, 1.0) / np.where(known, read, 1.0))
            wanted = one.allowed(scales[place] * step)
            passage.scale_weights(tensors, wanted / scales[place])
            largest_change = max(largest_change, float(np.abs(np.log(wanted / scales[place])).max(initial=0.0)))
            scales[place] = wanted
        if largest_change < SETTLED:
            break
    for passage, chosen in zip(found, scales, strict=True):
        passage.scale_vectors(tensors, chosen)


def _require_same_function(before: Artifact, after: Artifact, split: Split, name: str) -> None:
    """Raise TechniqueError where an output changed by more than rounding."""
    outputs = [spec.name for spec in before.outputs]
    pairs = zip(
        *(observed(one, outputs, (feed for feed, _ in feeds(split, one, BATCH))) for one in (before, after)),
        strict=True,
    )
    for wanted, found in pairs:
        for output in outputs:
            if wanted[output].dtype.kind != "f":
                continue
            scale = max(float(np.abs(wanted[output]).max(initial=0.0)), 1e-6)
            gap = float(np.abs(wanted[output].astype(np.float64) - found[output]).max(initial=0.0))
            if not gap <= ROUNDING * scale:
                after.path.unlink()
                raise TechniqueError(f"changed output {output!r} by {gap:.3g} (largest value {scale:.3g}).", where=name)


def _uneven_weights(found: Sensitivity) -> bool:
    """True where one scale is too coarse for a weight, or uneven weights make activations uneven."""
    if found.ranges is None or found.ranges < LEAST_RATIO:
        return False
    return found.settings.get("per_channel") is not True or _outliers(found)


def _outliers(found: Sensitivity) -> bool:
    return found.outliers is not None and found.outliers >= LEAST_RATIO


def _figure(ratio: float | None) -> str:
    return "not measured" if ratio is None else f"{ratio:.1f}x"
