"""Predicted latency and size of a finish: a chain of steps on the artifact, from probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autocompress.analysis.prediction import FLOAT_BYTES, predict_latency, predict_packed_size, predict_size
from autocompress.core.layer_patterns import matches_pattern
from autocompress.core.plan import Setting, Stage
from autocompress.core.probes import Probe
from autocompress.core.technique import ArtifactTechnique
from autocompress.planner.rules import Situation

Chain = tuple[ArtifactTechnique, ...]
# weights that are unpacked when the file is loaded take no time in a call: other places in memory make up so much
NOISE = 1.1
Given = Sequence[Mapping[str, Setting]]


def probes_of(chain: Chain, settings: Given, situation: Situation) -> list[Probe | None]:
    """The probe of each step with its settings, or the nearest to it."""
    return [situation.probes.with_settings(one.name, given) for one, given in zip(chain, settings, strict=True)]


def predicted_finish(chain: Chain, settings: Given, situation: Situation) -> tuple[float | None, float | None]:
    """Predicted latency and size after all steps: the product of the shares that each step leaves.

    What packs weights stores those of the step before it in fewer bytes, and takes no time of its own unless its probe
    shows that it does. A step with unknown effect counts as leaving everything as it is.
    """
    best = probes_of(chain, settings, situation)
    predicted = [_predicted(one, probe, situation) for one, probe in zip(chain, best, strict=True)]
    if all(both == (None, None) for both in predicted):
        return None, None
    latency = size = 1.0
    value_bytes: float = FLOAT_BYTES
    for one, probe, (own_latency, own_size), given in zip(chain, best, predicted, settings, strict=True):
        latency *= _time_of(one, probe, own_latency)
        if one.stage is Stage.PACKING and situation.figures is not None and one.covers(situation.facts):
            before, after = (size, value_bytes), one.weight_bytes(given)
            known = situation.facts, one.covers(situation.facts), before, after, one.layer_bytes, situation.figures
            size = predict_packed_size(*known, _in_float(situation))
        else:
            size *= 1.0 if own_size is None else own_size
        value_bytes = one.weight_bytes(given)
    return latency, size


def _time_of(technique: ArtifactTechnique, probe: Probe | None, latency: float | None) -> float:
    """The share of the latency before that a step takes; packing's within its noise counts as none."""
    if latency is None:
        return 1.0
    if technique.stage is Stage.PACKING and latency > 1 and probe is not None and (probe.low or 0.0) <= NOISE:
        return 1.0
    return latency


def _predicted(
    technique: ArtifactTechnique, best: Probe | None, situation: Situation
) -> tuple[float | None, float | None]:
    """Predicted latency and size of the whole model; of the probed layers where no more is known."""
    microbenchmarks, figures = situation.probes.microbenchmarks, situation.figures
    if best is None:
        return None, None
    if best.whole:
        return best.ratio, best.size_ratio
    if microbenchmarks is None or figures is None:
        return best.ratio, best.size_ratio
    facts = situation.facts
    known = facts, technique.covers(facts), best, microbenchmarks, figures, _in_float(situation)
    return predict_latency(*known), predict_size(*known, technique.weight_bytes(best.settings))


def _in_float(situation: Situation) -> set[str]:
    patterns = situation.profile.in_float
    return {layer.name for layer in situation.facts.layers if matches_pattern(layer.name, patterns)}
