"""Layer probes: techniques timed on microbenchmarks of the model's dominant layers, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.analysis import probe_cache
from autocompress.analysis.layer_microbenchmarks import (
    THIN,
    Microbenchmark,
    Microbenchmarks,
    activation_of,
    build,
    microbenchmarks_of,
)
from autocompress.analysis.probe_measuring import Pair, ProbeMeasurer, Tried, tried, with_figures
from autocompress.core.artifact import Artifact
from autocompress.core.dynamic_axes import ALL_FIXED
from autocompress.core.facts import Facts
from autocompress.core.plan import Setting
from autocompress.core.probes import MicrobenchmarkProbe, Probe, Probes
from autocompress.core.runtime import Example, Runtime, exported
from autocompress.core.search_space import first_options
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import AutocompressError, ModelError
from autocompress.system.scratch import scratch

PROBE_SECONDS = 0.3
CALIBRATION_ITEMS = 8


def run_probes(facts: Facts, measurer: ProbeMeasurer) -> Probes:
    """Probe each technique's settings on microbenchmarks of the model's dominant layers, against float.

    The cost of a layer that has hardly any channels is measured as well. Weights and inputs are random: time depends on
    shapes and types alone. A setting that the runtime or the technique cannot do on these layers is kept with its
    failure, and what there is no time for is left out. What an earlier run measured on this device with the same
    libraries is not measured again: see `probe_cache`.
    """
    microbenchmarks = microbenchmarks_of(facts)
    layers = tuple(microbenchmark.layer.name for microbenchmark in microbenchmarks)
    dot_product = "int8_dot_product" in measurer.tools.device.machine().features
    if not microbenchmarks:
        return Probes((), (), dot_product)
    key = measurer.key(_asked(facts, microbenchmarks, measurer.techniques))
    known = _known(key)
    if known is not None:
        measurer.tell("the probes of an earlier run on this device hold")
        probes, summary = known
        return Probes(probes, layers, dot_product, microbenchmarks=summary)
    probes, summary, skipped = _run(microbenchmarks, measurer)
    if summary is not None and not skipped:
        content = {"probes": [probe.to_json() for probe in probes], "microbenchmarks": vars(summary)}
        probe_cache.write(key, content, measurer.tell)
    return Probes(probes, layers, dot_product, microbenchmarks=summary, skipped=skipped)


def _known(key: str) -> tuple[tuple[Probe, ...], MicrobenchmarkProbe | None] | None:
    found = probe_cache.read(key)
    if found is None:
        return None
    try:
        return tuple(Probe.from_json(probe) for probe in found["probes"]), MicrobenchmarkProbe(
            **found["microbenchmarks"]
        )
    except (KeyError, TypeError):
        # written by another version: it is measured and written again
        return None


def _run(
    microbenchmarks: Sequence[Microbenchmark], measurer: ProbeMeasurer
) -> tuple[tuple[Probe, ...], MicrobenchmarkProbe | None, tuple[str, ...]]:
    """The probes, the figures of float, and what was left out for lack of time."""
    if measurer.limit.is_too_short():
        return (), None, ("layers",)
    module, inputs = build(microbenchmarks)
    generator = np.random.default_rng(0)
    items = {
        name: generator.standard_normal((CALIBRATION_ITEMS, *shape)).astype(np.float32)
        for name, shape in inputs.items()
    }
    example = Example({name: array[:1] for name, array in items.items()}, dynamic=ALL_FIXED)
    split = Example(dict(items)).as_split("random values")
    with scratch("probe") as folder:
        try:
            baseline = exported(measurer.tools.runtime, module, example, folder / "float.onnx")
        except ModelError as error:
            failed = [(technique.name, settings) for technique in measurer.techniques for settings in technique.probed]
            return tuple(Probe(name, settings, None, failure=error.message) for name, settings in failed), None, ()
        context = Context(None, example, split, folder)
        found: list[Tried] = []
        skipped: list[str] = []
        count = len(microbenchmarks)
        for technique in measurer.techniques:
            if measurer.limit.is_too_short():
                skipped.append(f"{technique.name} on layers")
                continue
            measurer.tell(f"probing {technique.name} on {count} kind{'s' if count > 1 else ''} of layers")
            with measurer.limit.piece():
                found += tried(technique, technique.probed, _settings(technique), baseline, context)
        if measurer.limit.is_over():
            return (), None, ("layers",)
        thin = _thin(microbenchmarks, measurer.tools.runtime, context)
        measurer.tell("measuring these probes in turn")
        artifacts = [one for one in (thin, *(one for _, one in found)) if one is not None]
        pairs = measurer.pairs(baseline, artifacts, example, PROBE_SECONDS)
        probes = tuple(with_figures(found, pairs, baseline))
        summary = None if thin is None else _summary(microbenchmarks, module, pairs[thin], baseline.size_bytes)
    return probes, summary, tuple(skipped)


def _thin(microbenchmarks: Sequence[Microbenchmark], runtime: Runtime, context: Context) -> Artifact | None:
    """The exported microbenchmarks with hardly any channels; None where they cannot be exported."""
    module, _ = build(microbenchmarks, THIN)
    try:
        return exported(runtime, module, context.example, context.folder / "thin.onnx")
    except ModelError:
        return None


def _summary(
    microbenchmarks: Sequence[Microbenchmark], module: Microbenchmarks, pair: Pair, size_bytes: int
) -> MicrobenchmarkProbe | None:
    """Sizes and times of the float microbenchmarks, and the time of a layer with hardly any channels.

    None where they could not be measured.
    """
    if isinstance(pair, AutocompressError):
        return None
    times = [float(np.median(one.readings["latency_ms"].load_statistic("p50"))) for one in pair]
    count = sum(microbenchmark.length * microbenchmark.copies for microbenchmark in microbenchmarks)
    macs = sum(
        microbenchmark.length * microbenchmark.copies * microbenchmark.layer.macs for microbenchmark in microbenchmarks
    )
    weights = [weight for weight in module.parameters() if weight.dim() > 1]
    channels = sum(len(weight) for weight in weights)
    size = sum(weight.numel() for weight in weights)
    return MicrobenchmarkProbe(count, macs, size, channels, times[0], size_bytes, times[1] / count)


def _asked(facts: Facts, microbenchmarks: Sequence[Microbenchmark], techniques: Sequence[ArtifactTechnique]) -> Any:
    layers = [
        [one.layer.type, list(one.layer.input_shape), dict(one.layer.detail), one.length, one.copies]
        for one in microbenchmarks
    ]
    return [
        layers,
        activation_of(facts),
        [[technique.name, [dict(settings) for settings in technique.probed]] for technique in techniques],
    ]


def _settings(technique: ArtifactTechnique) -> dict[str, Setting]:
    """The first option of each setting, with convolutions included where the technique can leave them out."""
    first = first_options(technique.choices)
    return {**first, "convolutions": True} if "convolutions" in first else first
