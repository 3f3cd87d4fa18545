"""Sensitivity: what quantizing each layer costs in accuracy, and what leaving layers in float costs.

Measured on files in the runtime: every file is made by the technique itself, so that what is measured is what would
ship. One layer at a time is taken back to float; then sets of layers, since losses do not add up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from autocompress.analysis.node_times import float_shares, quantized_shares
from autocompress.analysis.precision_variants import Subject, Variants
from autocompress.analysis.range_facts import outlier_ratio, range_spread
from autocompress.analysis.sensitive_groups import most_sensitive_first
from autocompress.core.artifact import Artifact
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import time_matters
from autocompress.core.sensitivity import LayerSensitivity, Mixed, Sensitivity
from autocompress.core.tools import Tools
from autocompress.errors import TechniqueError
from autocompress.runtimes.onnx_file import load_model
from autocompress.runtimes.quantizable_nodes import NodeFact, node_facts
from autocompress.system.scratch import scratch
from autocompress.system.time_limit import TimeLimit

# share of the time for single layers; sets of layers get the rest
SINGLE_SHARE = 0.7
# numbers of layers in the sets, and how many sets are kept at most
SET_SIZES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
MOST_SETS = 8
# a set is worth a trial when its divergence is below this share of that of the one before; none is beyond ENOUGH
IMPROVES, ENOUGH = 0.9, 0.05
# a group of nodes that wins back less than this share of the divergence holds none that matters
TINY = 0.05
# the first layers, whose neighbours are looked at
LEADING = 3
# what a layer costs at least, as a share of the file's time or bytes: no layer is free for certain
LEAST_COST = 0.002


def measure_sensitivity(
    subject: Subject,
    tools: Tools,
    profile: Profile,
    seconds: float | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Sensitivity:
    """Measure the sensitivity of a model's layers to a quantization, within `seconds` if given.

    The layers that matter most are looked for first; `tell` says what was left out.

    Raises:
        TechniqueError: when the technique cannot leave layers in float, or cannot quantize the model at all.
        RuntimeFailureError: when the runtime fails on the float file or on the quantized one.
    """
    technique, settings = subject.technique, subject.settings
    names = technique.quantizes(subject.artifact, settings)
    if not names:
        raise TechniqueError("cannot leave single layers of this model in float.", where=technique.name)
    with scratch("sensitivity") as folder:
        began = time.monotonic()
        variants = Variants(subject, tools, profile, folder, tell)
        model = load_model(subject.artifact.path)
        facts, ranges = node_facts(model.graph, names), range_spread(model)
        del model
        whole, full = variants.make()
        expected = time.monotonic() - began
        tell(f"with every layer quantized the outputs diverge by {full:.3g}")
        measuring = _Measuring(variants, facts, full, timed=time_matters(profile), tell=tell)
        limit = TimeLimit(None if seconds is None else SINGLE_SHARE * seconds - expected, expected)
        found, left_out = measuring.one_by_one(whole.size_bytes, limit)
        ordered = measuring.in_order(measuring.with_times(found, whole), whole.size_bytes)
        layers = measuring.with_neighbours(ordered, limit)
        left = None if seconds is None else max(0.0, seconds - (time.monotonic() - began))
        mixed = measuring.mixed(layers, TimeLimit(left, expected))
    return Sensitivity(
        technique.name,
        dict(settings),
        full,
        variants.items,
        tuple(layers),
        tuple(mixed),
        ranges,
        outlier_ratio(subject.artifact, variants.feeds),
        tuple(left_out),
    )


class _Measuring:
    """The layers of one subject, whose outputs diverge by `full` when all of them are quantized.

    Time is what layers cost where they are `timed`, else bytes.
    """

    def __init__(
        self, variants: Variants, facts: Sequence[NodeFact], full: float, *, timed: bool, tell: Callable[[str], None]
    ) -> None:
        self._variants, self._facts, self._full = variants, facts, full
        self._timed, self._tell = timed, tell

    def one_by_one(self, size: int, limit: TimeLimit) -> tuple[list[LayerSensitivity], list[str]]:
        """Each layer with its divergence and bytes, and the names of those that there was no time for.

        `size` is that of the file with every layer quantized.
        """
        found, left_out = [], []
        for node in most_sensitive_first(self._facts, lambda group: self._won(group, limit), TINY * self._full):
            if limit.is_too_short():
                left_out.append(node.name)
                continue
            with limit.piece():
                measured = self._variants.measured([node.name])
            if measured is not None:
                divergence, bytes_ = measured
                in_float = 4 * node.weights
                before = max(0, in_float - max(0, bytes_ - size))
                found.append(LayerSensitivity(node.name, node.operator, divergence, None, None, before, in_float))
        if left_out:
            self._tell(f"the time did not suffice to measure {len(left_out)} of {len(self._facts)} layers")
        return found, left_out

    def _won(self, group: Sequence[NodeFact], limit: TimeLimit) -> float | None:
        """What a group of nodes in float wins back; None without time for it, or where there is no such file."""
        if limit.is_too_short():
            return None
        with limit.piece():
            measured = self._variants.measured([node.name for node in group], aloud=False)
        if measured is None:
            return None
        # no difference of two infinite values
        return self._full - measured[0] if measured[0] < self._full else 0.0

    def with_times(self, layers: Sequence[LayerSensitivity], whole: Artifact) -> list[LayerSensitivity]:
        """The layers with their milliseconds in both files, as far as the runtime tells them."""
        latencies = self._variants.milliseconds(whole)
        if latencies is None:
            return list(layers)
        before, after = latencies
        floats = float_shares(self._facts, self._variants.profiled(self._variants.subject.artifact))
        quantized = quantized_shares(self._facts, self._variants.profiled(whole))
        return [
            replace(
                layer,
                milliseconds=quantized[layer.name] * after if layer.name in quantized else None,
                float_milliseconds=floats[layer.name] * before if layer.name in floats else None,
            )
            for layer in layers
        ]

    def in_order(self, layers: Sequence[LayerSensitivity], size: int) -> list[LayerSensitivity]:
        """The layers by accuracy won per time or bytes lost; those that win nothing last."""
        total = sum(layer.milliseconds or 0.0 for layer in layers) if self._timed else float(size)

        def worth(layer: LayerSensitivity) -> tuple[bool, float]:
            won = self._full - layer.divergence
            cost = layer.added_milliseconds if self._timed else layer.added_bytes
            return won <= 0, -won / (cost / (total or 1.0) + LEAST_COST) if won > 0 else -won

        return sorted(layers, key=worth)

    def with_neighbours(self, layers: Sequence[LayerSensitivity], limit: TimeLimit) -> list[LayerSensitivity]:
        """The layers with some moved up, behind one of the first that gains by having them in float too.

        A layer in float still gets rounded values from an int8 layer before it. That one may win nothing alone, while
        both together win what neither does.
        """
        ordered = list(layers)
        before = {node.name: node.before for node in self._facts}
        for leading in layers[:LEADING]:
            for name in before[leading.name]:
                behind = next((layer for layer in ordered if layer.name == name), None)
                if behind is None or limit.is_too_short() or ordered.index(behind) < ordered.index(leading):
                    continue
                with limit.piece():
                    both = self._variants.measured([leading.name, name])
                if both is not None and both[0] < IMPROVES * leading.divergence:
                    ordered.remove(behind)
                    ordered.insert(ordered.index(leading) + 1, behind)
        return ordered

    def mixed(self, layers: Sequence[LayerSensitivity], limit: TimeLimit) -> list[Mixed]:
        """Nested sets that each bring the outputs closer, with shares of the float file's latency and size.

        A set that is as large or, where time matters, as slow as the float file is none.
        """
        # the last ones win nothing; one before them that wins nothing alone was moved up for what it wins with others
        most = max((place for place, layer in enumerate(layers, 1) if layer.divergence < self._full), default=0)
        whole = self._variants.subject.artifact.size_bytes
        found: list[tuple[Mixed, Artifact]] = []
        last = self._full
        for count in (size for size in SET_SIZES if size <= most):
            if limit.is_too_short() or len(found) == MOST_SETS or last <= ENOUGH * self._full:
                break
            names = tuple(layer.name for layer in layers[:count])
            with limit.piece():
                made = self._variants.tried(names)
            if made is None or made[0].size_bytes >= whole:
                break
            file, divergence = made
            self._tell(f"with {count} {'layer' if count == 1 else 'layers'} in float it is {divergence:.3g}")
            if divergence < IMPROVES * last:
                found.append((Mixed(names, divergence, size=file.size_bytes / whole), file))
                last = divergence
        shares = self._variants.latency_shares([file for _, file in found])
        sets = [replace(one, latency=share) for (one, _), share in zip(found, shares, strict=True)]
        return [one for one in sets if not self._timed or one.latency is None or one.latency < 1]
