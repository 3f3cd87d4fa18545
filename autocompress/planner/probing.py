"""Probes: seconds of micro-measurement with the model's own dominant layers, on the profile's device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autocompress import probe_cache
from autocompress.artifact import Artifact
from autocompress.device import Device
from autocompress.errors import ModelError, RuntimeFailureError, TechniqueError
from autocompress.facts import Facts
from autocompress.machine import Machine
from autocompress.measurement import Measurement
from autocompress.plan import Setting
from autocompress.planner.chains import THIN, Chain, Chains, build, chains_of
from autocompress.probes import ChainProbe, Probe, Probes
from autocompress.profile import Profile
from autocompress.runtime import Example, Runtime
from autocompress.scratch import scratch
from autocompress.source import ArraySource, whole
from autocompress.statistics import median_bounds
from autocompress.technique import ArtifactTechnique, Context
from autocompress.turns import working

PROBE_SECONDS = 0.5
CALIBRATION_ITEMS = 8
PROBE_ALPHA = 0.05


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
    key = probe_cache.key_of(machine, runtime.versions, profile, _asked(chains, techniques))
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
                float_artifact = runtime.export(module, example, folder / "float.onnx")
        except ModelError as error:
            return tuple(Probe(t.name, s, None, failure=error.message) for t in techniques for s in t.probed), None
        found = []
        context = Context(None, example, part, folder)
        for technique in techniques:
            said(f"probing {technique.name} on {len(chains)} kinds of layers")
            found += _probe(technique, float_artifact, context, device, profile)
        said("measuring what a layer costs here, however thin it is")
        summary = _summary(chains, module, float_artifact, runtime, device, profile, context)
    return tuple(found), summary


def _summary(
    chains: Sequence[Chain],
    module: Chains,
    baseline: Artifact,
    runtime: Runtime,
    device: Device,
    profile: Profile,
    context: Context,
) -> ChainProbe | None:
    """The chains in float; None where they cannot be measured."""
    thin, _ = build(chains, THIN)
    try:
        with working():
            narrow = runtime.export(thin, context.example, context.folder / "thin.onnx")
        pair = device.measure([baseline, narrow], replace(profile, budgets=()), context.example, 2 * PROBE_SECONDS)
    except (ModelError, RuntimeFailureError):
        return None
    times = [float(np.median(one.readings["latency_ms"].block_statistic("p50"))) for one in pair]
    count = sum(chain.length * chain.copies for chain in chains)
    macs = sum(chain.length * chain.copies * chain.layer.macs for chain in chains)
    weights = [weight for weight in module.parameters() if weight.dim() > 1]
    channels = sum(len(weight) for weight in weights)
    size = sum(weight.numel() for weight in weights)
    return ChainProbe(count, macs, size, channels, times[0], baseline.size_bytes, times[1] / count)


def _asked(chains: Sequence[Chain], techniques: Sequence[ArtifactTechnique]) -> Any:
    layers = [
        [one.layer.type, list(one.layer.input_shape), dict(one.layer.detail), one.length, one.copies] for one in chains
    ]
    return [layers, [[technique.name, [dict(settings) for settings in technique.probed]] for technique in techniques]]


def _probe(
    technique: ArtifactTechnique, baseline: Artifact, context: Context, device: Device, profile: Profile
) -> list[Probe]:
    defaults = {choice.name: choice.options[0] for choice in technique.choices}
    if "convolutions" in defaults:
        # what the technique does to convolutions is what the probe asks
        defaults["convolutions"] = True
    built: list[tuple[int, Artifact]] = []
    probes: list[Probe] = []
    for place, settings in enumerate(technique.probed):
        folder = context.folder / f"{technique.name}-{place}"
        folder.mkdir()
        inside = Context(context.task, context.example, context.calibrating, folder)
        try:
            with working():
                built.append((place, technique.apply(baseline, {**defaults, **settings}, inside)))
            probes.append(Probe(technique.name, settings, None))
        except (TechniqueError, RuntimeFailureError) as error:
            probes.append(Probe(technique.name, settings, None, failure=error.message))
    artifacts = [artifact for _, artifact in built]
    # the budgets are the model's, not the probe's: no need to measure until they are decided
    profile = replace(profile, budgets=())
    pairs: list[tuple[Measurement, Measurement] | RuntimeFailureError]
    try:
        measured = device.measure([baseline, *artifacts], profile, context.example, PROBE_SECONDS * (1 + len(built)))
        pairs = [(measured[0], after) for after in measured[1:]]
    except RuntimeFailureError:
        # one that fails in the runtime must not hide the others
        pairs = [_pair(baseline, artifact, context, device, profile) for artifact in artifacts]
    for (place, artifact), pair in zip(built, pairs, strict=True):
        size_ratio = artifact.size_bytes / baseline.size_bytes
        probes[place] = _compare(technique.name, technique.probed[place], pair, size_ratio)
    return probes


def _pair(
    baseline: Artifact, artifact: Artifact, context: Context, device: Device, profile: Profile
) -> tuple[Measurement, Measurement] | RuntimeFailureError:
    try:
        before, after = device.measure([baseline, artifact], profile, context.example, PROBE_SECONDS)
    except RuntimeFailureError as error:
        return error
    return before, after


def _compare(
    technique: str,
    settings: Mapping[str, Setting],
    pair: tuple[Measurement, Measurement] | RuntimeFailureError,
    size_ratio: float,
) -> Probe:
    if isinstance(pair, RuntimeFailureError):
        return Probe(technique, settings, None, failure=pair.message)
    before, after = (side.readings["latency_ms"].block_statistic("p50") for side in pair)
    ratios = after / before
    low, high = median_bounds(ratios, PROBE_ALPHA)
    return Probe(
        technique,
        settings,
        float(np.median(ratios)),
        low if np.isfinite(low) else float(ratios.min()),
        high if np.isfinite(high) else float(ratios.max()),
        size_ratio,
    )
