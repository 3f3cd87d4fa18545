"""Probes: seconds of micro-measurement with the model's own dominant layers, on the profile's device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.analysis import probe_cache
from autocompress.analysis.layer_microbenchmarks import THIN, Chain, Chains, activation_of, build, chains_of
from autocompress.analysis.probe_measuring import Pair, ProbeBench, Tried, tried, with_figures
from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts
from autocompress.core.plan import Setting
from autocompress.core.probes import ChainProbe, Probe, Probes
from autocompress.core.runtime import Example, Runtime
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import ModelError, RuntimeFailureError
from autocompress.system.locks import working
from autocompress.system.scratch import scratch

PROBE_SECONDS = 0.3
CALIBRATION_ITEMS = 8


def run_probes(facts: Facts, bench: ProbeBench) -> Probes:
    """Each technique's probed settings on chains of the model's dominant layers, against float, and what a layer costs
    that has hardly any channels.

    Weights and inputs are random: time depends on shapes and types alone. A setting that the runtime or the
    technique cannot do on these layers is kept with its failure. What an earlier run measured on this device with the
    same libraries is not measured again: see `probe_cache`.
    """
    chains = chains_of(facts)
    layers = tuple(chain.layer.name for chain in chains)
    dot_product = "int8_dot_product" in bench.machine.features
    if not chains:
        return Probes((), (), dot_product)
    key = bench.key(_asked(facts, chains, bench.techniques))
    known = _known(key)
    if known is not None:
        bench.said("the probes of an earlier run on this device hold")
        probes, summary = known
        return Probes(probes, layers, dot_product, chains=summary)
    probes, summary = _run(chains, bench)
    if summary is not None:
        content = {"probes": [probe.to_json() for probe in probes], "chains": vars(summary)}
        probe_cache.write(key, content, bench.said)
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


def _run(chains: Sequence[Chain], bench: ProbeBench) -> tuple[tuple[Probe, ...], ChainProbe | None]:
    module, inputs = build(chains)
    generator = np.random.default_rng(0)
    items = {
        name: generator.standard_normal((CALIBRATION_ITEMS, *shape)).astype(np.float32)
        for name, shape in inputs.items()
    }
    example = Example({name: array[:1] for name, array in items.items()})
    part = Example(dict(items)).as_part("random values")
    with scratch("probe") as folder:
        try:
            with working():
                baseline = bench.runtime.export(module, example, folder / "float.onnx")
        except ModelError as error:
            failed = [(technique.name, settings) for technique in bench.techniques for settings in technique.probed]
            return tuple(Probe(name, settings, None, failure=error.message) for name, settings in failed), None
        context = Context(None, example, part, folder)
        found: list[Tried] = []
        for technique in bench.techniques:
            bench.said(f"probing {technique.name} on {len(chains)} kind{'s' if len(chains) > 1 else ''} of layers")
            found += tried(technique, technique.probed, _settings(technique), baseline, context)
        thin = _thin(chains, bench.runtime, context)
        bench.said("measuring these probes in turn")
        artifacts = [one for one in (thin, *(one for _, one in found)) if one is not None]
        pairs = bench.pairs(baseline, artifacts, example, PROBE_SECONDS)
        probes = tuple(with_figures(found, pairs, baseline))
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


def _settings(technique: ArtifactTechnique) -> dict[str, Setting]:
    """The first options; what the technique does to convolutions is what the probe asks."""
    first = {choice.name: choice.options[0] for choice in technique.choices}
    return {**first, "convolutions": True} if "convolutions" in first else first
