"""Apply techniques to an artifact and measure the results beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autocompress.analysis import probe_cache
from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Setting
from autocompress.core.probes import Probe
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.technique import ArtifactTechnique, Context, applied
from autocompress.core.tools import Tools
from autocompress.errors import ENDS_THE_RUN, AutocompressError, RuntimeFailureError, raised_as
from autocompress.statistics.bounds import median_bounds
from autocompress.system.time_limit import TimeLimit

PROBE_ALPHA = 0.05
# measurements of the baseline and an artifact, alternating, or the error when there are none
Pair = tuple[Measurement, Measurement] | AutocompressError
# a probe with the artifact that it is about, None where that could not be made
Tried = tuple[Probe, Artifact | None]


@dataclass(frozen=True, eq=False)
class ProbeMeasurer:
    """Measures what techniques make of an artifact, in one runtime on one device, as the profile says.

    Where the `limit` is too short for one more technique, it is left out.
    """

    techniques: Sequence[ArtifactTechnique]
    tools: Tools
    profile: Profile
    tell: Callable[[str], None] = lambda sentence: None
    limit: TimeLimit = field(default_factory=lambda: TimeLimit(None))

    def key(self, probed: Any) -> str:
        """The cache key under which the results for `probed` are stored."""
        return probe_cache.key_of(self.tools.device.machine(), self.tools.runtime.versions, self.profile, probed)

    def pairs(
        self, baseline: Artifact, artifacts: Sequence[Artifact], example: Example, seconds: float
    ) -> dict[Artifact, Pair]:
        """Measure each artifact beside the baseline: both measurements, or the error when there are none.

        Measurements alternate, for `seconds` per artifact.
        """
        if not artifacts:
            return {}
        try:
            before, *after = self._measure([baseline, *artifacts], example, seconds)
        except ENDS_THE_RUN:
            raise
        except AutocompressError:
            # an artifact that fails in the runtime must not cost the others their measurements
            return {one: self._pair(baseline, one, example, seconds) for one in artifacts}
        return {artifact: (before, one) for artifact, one in zip(artifacts, after, strict=True)}

    def _pair(self, baseline: Artifact, artifact: Artifact, example: Example, seconds: float) -> Pair:
        try:
            before, after = self._measure([baseline, artifact], example, seconds)
        except ENDS_THE_RUN:
            raise
        except AutocompressError as error:
            return error
        return before, after

    def _measure(self, artifacts: Sequence[Artifact], example: Example, seconds: float) -> Sequence[Measurement]:
        # the budgets are for the model, not for the probe: no need to measure until they are decided
        profile = replace(self.profile, budgets=())
        with raised_as(RuntimeFailureError, "device"):
            return self.tools.device.measure(list(artifacts), profile, example, seconds * (len(artifacts) - 1))


def tried(
    technique: ArtifactTechnique,
    wanted: Iterable[Mapping[str, Setting]],
    others: Mapping[str, Setting],
    baseline: Artifact,
    context: Context,
) -> list[Tried]:
    """Apply a technique with each of the wanted settings; the probes have no figures yet.

    A setting for which there is no artifact has its failure in the probe. `others` are the settings that do not vary.
    """
    found: list[Tried] = []
    for place, settings in enumerate(wanted):
        folder = context.folder / f"{technique.name}-{place}"
        folder.mkdir()
        inside = Context(context.task, context.example, context.calibration, folder)
        try:
            artifact = applied(technique, baseline, {**others, **settings}, inside)
            found.append((Probe(technique.name, settings, None), artifact))
        except ENDS_THE_RUN:
            raise
        except AutocompressError as error:
            found.append((Probe(technique.name, settings, None, failure=error.message), None))
    return found


def with_figures(found: Sequence[Tried], pairs: Mapping[Artifact, Pair], baseline: Artifact) -> list[Probe]:
    """The probes, with latency and size ratios from the measurements of their artifacts."""
    return [probe if one is None else _compared(probe, pairs[one], one, baseline) for probe, one in found]


def _compared(probe: Probe, pair: Pair, artifact: Artifact, baseline: Artifact) -> Probe:
    if isinstance(pair, AutocompressError):
        return replace(probe, failure=pair.message)
    before, after = pair
    ratios = Measurement(after.readings, before.readings).latency_ratios("p50")
    low, high = median_bounds(ratios, PROBE_ALPHA)
    return replace(
        probe,
        ratio=float(np.median(ratios)),
        low=low if np.isfinite(low) else float(ratios.min()),
        high=high if np.isfinite(high) else float(ratios.max()),
        size_ratio=artifact.size_bytes / baseline.size_bytes,
    )
