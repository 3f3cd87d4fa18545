"""Probes: seconds of micro-measurement with the model's own dominant layers, on the profile's device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autocompress import probe_cache
from autocompress.artifact import Artifact
from autocompress.device import Device
from autocompress.errors import ModelError, RuntimeFailureError, TechniqueError
from autocompress.facts import Facts
from autocompress.machine import Machine
from autocompress.measurement import Measurement
from autocompress.planner.chains import THIN, Chain, Chains, activation_of, build, chains_of
from autocompress.probes import ChainProbe, Probe, Probes
from autocompress.profile import Profile
from autocompress.runtime import Example, Runtime
from autocompress.scratch import scratch
from autocompress.source import ArraySource, whole
from autocompress.statistics import median_bounds
from autocompress.technique import ArtifactTechnique, Context
from autocompress.turns import working

PROBE_SECONDS = 0.4
CALIBRATION_ITEMS = 8
PROBE_ALPHA = 0.05
# measurements in turn, or why there are none
Pair = tuple[Measurement, Measurement] | RuntimeFailureError


def run_probes(
    facts: Facts,
    techniques: Sequence[ArtifactTechnique],
    runtime: Runtime,
    device: Device,
    profile: Profile,
    machine: Machine,
    said: Callable[[str], None] = lambda sentence: None,
) -> Probes:
    """Each technique's probed settings on chains of the model's dominant layers, against float, and what a layer costs
    that has hardly any channels.

    Weights and inputs are random: time depends on shapes and types alone. A setting that the runtime or the
    technique cannot do on these layers is kept with its failure. What an earlier run measured on this device with the
    same libraries is not measured again: see `probe_cache`.
    """
    chains = chains_of(facts)
    layers = tuple(chain.layer.name for chain in chains)
    dot_product = "int8_dot_product" in machine.features
    if not chains:
        return Probes((), (), dot_product)
    key = probe_cache.key_of(machine, runtime.versions, profile, _asked(facts, chains, techniques))
    known = _known(key)
    if known is not None:
        said("the probes of an earlier run on this device hold")
        probes, summary = known
        return Probes(probes, layers, dot_product, chains=summary)
    probes, summary = _run(chains, techniques, runtime, device, profile, said)
    if summary is not None:
        content = {"probes": [probe.to_json() for probe in probes], "chains": vars(summary)}
        probe_cache.write(key, content, said)
    return Probes(probes, layers, dot_product, chains=summary)


def _known(key: str) -> tuple[tuple[Probe, ...], ChainProbe | None] | None:
    found = probe_cache.read(key)
    if found is None:
        return None
    try:
        return tuple(Probe.from_json(probe) for probe in found["probes"]), ChainProbe(**found["chains"])
    except (KeyError, TypeError):
        # of another version: measured and written anew
        return None


def _run(
    chains: Sequence[Chain],
    techniques: Sequence[ArtifactTechnique],
    runtime: Runtime,
    device: Device,
    profile: Profile,
    said: Callable[[str], None],
) -> tuple[tuple[Probe, ...], ChainProbe | None]:
    module, inputs = build(chains)
    generator = np.random.default_rng(0)
    items = {
        name: generator.standard_normal((CALIBRATION_ITEMS, *shape)).astype(np.float32)
        for name, shape in inputs.items()
    }
    example = Example({name: array[:1] for name, array in items.items()})
    part = whole("random values", ArraySource(dict(items), np.zeros(CALIBRATION_ITEMS, dtype=np.int64)))
    with scratch("probe") as folder:
        try:
            with working():
                baseline = runtime.export(module, example, folder / "float.onnx")
        except ModelError as error:
            return tuple(Probe(t.name, s, None, failure=error.message) for t in techniques for s in t.probed), None
        context = Context(None, example, part, folder)
        made = []
        for technique in techniques:
            said(f"probing {technique.name} on {len(chains)} kinds of layers")
            made += _made(technique, baseline, context)
        thin = _thin(chains, runtime, context)
        said("measuring these probes in turn")
        # the budgets are the model's, not the probe's: no need to measure until they are decided
        bench = _Bench(device, replace(profile, budgets=()), example)
        artifacts = [one for one in (thin, *(one for _, one in made)) if isinstance(one, Artifact)]
        pairs = dict(zip(artifacts, bench.pairs(baseline, artifacts), strict=True))
        probes = tuple(
            probe if artifact is None else _compared(probe, pairs[artifact], artifact.size_bytes / baseline.size_bytes)
            for probe, artifact in made
        )
        summary = None if thin is None else _summary(chains, module, pairs[thin], baseline.size_bytes)
    return probes, summary


def _thin(chains: Sequence[Chain], runtime: Runtime, context: Context) -> Artifact | None:
    """The chains with hardly any channels; None where they cannot be exported."""
    module, _ = build(chains, THIN)
    try:
        with working():
            return runtime.export(module, context.example, context.folder / "thin.onnx")
    except ModelError:
        return None


def _summary(chains: Sequence[Chain], module: Chains, pair: Pair, size_bytes: int) -> ChainProbe | None:
    """The chains in float, by themselves and beside thin ones; None where they could not be measured."""
    if isinstance(pair, RuntimeFailureError):
        return None
    times = [float(np.median(one.readings["latency_ms"].block_statistic("p50"))) for one in pair]
    count = sum(chain.length * chain.copies for chain in chains)
    macs = sum(chain.length * chain.copies * chain.layer.macs for chain in chains)
    weights = [weight for weight in module.parameters() if weight.dim() > 1]
    channels = sum(len(weight) for weight in weights)
    size = sum(weight.numel() for weight in weights)
    return ChainProbe(count, macs, size, channels, times[0], size_bytes, times[1] / count)


def _asked(facts: Facts, chains: Sequence[Chain], techniques: Sequence[ArtifactTechnique]) -> Any:
    layers = [
        [one.layer.type, list(one.layer.input_shape), dict(one.layer.detail), one.length, one.copies] for one in chains
    ]
    return [
        layers,
        activation_of(facts),
        [[technique.name, [dict(settings) for settings in technique.probed]] for technique in techniques],
    ]


def _made(technique: ArtifactTechnique, baseline: Artifact, context: Context) -> list[tuple[Probe, Artifact | None]]:
    """A probe, still without figures, for each probed setting, with its file; with the failure where there is none."""
    defaults = {choice.name: choice.options[0] for choice in technique.choices}
    if "convolutions" in defaults:
        # what the technique does to convolutions is what the probe asks
        defaults["convolutions"] = True
    made: list[tuple[Probe, Artifact | None]] = []
    for place, settings in enumerate(technique.probed):
        folder = context.folder / f"{technique.name}-{place}"
        folder.mkdir()
        inside = Context(context.task, context.example, context.calibrating, folder)
        try:
            with working():
                artifact = technique.apply(baseline, {**defaults, **settings}, inside)
            made.append((Probe(technique.name, settings, None), artifact))
        except (TechniqueError, RuntimeFailureError) as error:
            made.append((Probe(technique.name, settings, None, failure=error.message), None))
    return made


@dataclass(frozen=True, eq=False)
class _Bench:
    """Where artifacts are measured in turn with the one that they were made from."""

    device: Device
    profile: Profile
    example: Example

    def pairs(self, baseline: Artifact, artifacts: Sequence[Artifact]) -> list[Pair]:
        """The baseline's measurement with that of each artifact, or why there is none."""
        try:
            before, *after = self._measure(baseline, *artifacts)
        except RuntimeFailureError:
            # one that fails in the runtime must not hide the others
            return [self._pair(baseline, artifact) for artifact in artifacts]
        return [(before, one) for one in after]

    def _pair(self, baseline: Artifact, artifact: Artifact) -> Pair:
        try:
            before, after = self._measure(baseline, artifact)
        except RuntimeFailureError as error:
            return error
        return before, after

    def _measure(self, *artifacts: Artifact) -> Sequence[Measurement]:
        return self.device.measure(list(artifacts), self.profile, self.example, PROBE_SECONDS * len(artifacts))


def _compared(probe: Probe, pair: Pair, size_ratio: float) -> Probe:
    if isinstance(pair, RuntimeFailureError):
        return replace(probe, failure=pair.message)
    before, after = (side.readings["latency_ms"].block_statistic("p50") for side in pair)
    ratios = after / before
    low, high = median_bounds(ratios, PROBE_ALPHA)
    return replace(
        probe,
        ratio=float(np.median(ratios)),
        low=low if np.isfinite(low) else float(ratios.min()),
        high=high if np.isfinite(high) else float(ratios.max()),
        size_ratio=size_ratio,
    )
