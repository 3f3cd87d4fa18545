"""Model probes: techniques applied to the whole model and timed, where that takes only seconds.

Times of int8 on microbenchmarks of a model's dominant layers hold where these layers take the time. Depthwise
convolutions, concatenations and gates between them may take as much, and gain nothing or become slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autocompress.analysis import probe_cache
from autocompress.analysis.probe_measuring import ProbeMeasurer, Tried, tried, with_figures
from autocompress.core.artifact import BYTES_PER_MB, Artifact
from autocompress.core.facts import Facts
from autocompress.core.plan import Setting
from autocompress.core.probes import Probe, Probes
from autocompress.core.runtime import Example
from autocompress.core.search_space import SettingSpace, first_options
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.system.scratch import scratch

# larger files take longer to quantize than planning may take; their time lies in large layers, for which
# microbenchmarks are representative
MOST_MB = 60.0
# how many settings of a technique are tried: those that were fastest on the microbenchmarks
MOST_SETTINGS = 2
PROBE_SECONDS = 0.8


def probe_model(baseline: Artifact, example: Example, facts: Facts, probes: Probes, measurer: ProbeMeasurer) -> Probes:
    """Add probes of the whole model for techniques that pay on the microbenchmarks.

    The probes are returned unchanged for large files. Quantization ranges are taken from the example: time and size do
    not depend on them. What there is no time for is left out.
    """
    if baseline.size_bytes > MOST_MB * BYTES_PER_MB:
        return probes
    spaces = {
        technique: technique.space(facts, probes, measurer.profile)
        for technique in measurer.techniques
        if probes.of(technique.name) and technique.refuses(facts, probes, measurer.profile) is None
    }
    if not spaces:
        return probes
    asked = [[technique.name, _others(space), list(_wanted(space))] for technique, space in spaces.items()]
    key = measurer.key(["whole", baseline.hash, asked])
    found = _known(key)
    skipped: Sequence[str] = ()
    if found is None:
        found, skipped = _run(baseline, example, spaces, measurer)
        if not skipped:
            probe_cache.write(key, {"probes": [probe.to_json() for probe in found]}, measurer.tell)
    return replace(probes, probes=(*probes.probes, *found), skipped=(*probes.skipped, *skipped))


def _known(key: str) -> list[Probe] | None:
    try:
        return [Probe.from_json(probe) for probe in (probe_cache.read(key) or {})["probes"]]
    except (KeyError, TypeError):
        # missing, or written by another version: it is measured and written again
        return None


def _wanted(space: SettingSpace) -> Sequence[Mapping[str, Setting]]:
    """The first settings that differ in what changes size or latency."""
    found: dict[str, dict[str, Setting]] = {}
    for settings in space.combinations:
        found.setdefault(str(space.structural(settings)), dict(settings))
    return list(found.values())[:MOST_SETTINGS] or [{}]


def _others(space: SettingSpace) -> dict[str, Setting]:
    return first_options(space.choices)


def _run(
    baseline: Artifact, example: Example, spaces: Mapping[ArtifactTechnique, SettingSpace], measurer: ProbeMeasurer
) -> tuple[list[Probe], list[str]]:
    """The probes, and what was left out for lack of time."""
    with scratch("probe") as folder:
        context = Context(None, example, example.as_split(), folder)
        found: list[Tried] = []
        skipped: list[str] = []
        for technique, space in spaces.items():
            if measurer.limit.is_too_short():
                skipped.append(f"{technique.name} on the whole model")
                continue
            measurer.tell(f"probing {technique.name} on the whole model")
            with measurer.limit.piece():
                found += tried(technique, _wanted(space), _others(space), baseline, context)
        if measurer.limit.is_over():
            return [], [f"{technique.name} on the whole model" for technique in spaces]
        measurer.tell("measuring these probes in turn")
        artifacts = [one for _, one in found if one is not None]
        pairs = measurer.pairs(baseline, artifacts, example, PROBE_SECONDS)
        return [replace(probe, whole=True) for probe in with_figures(found, pairs, baseline)], skipped
