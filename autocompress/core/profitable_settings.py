"""Settings of a quantization that pay on this device, according to the probes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autocompress.core.budget import TIME_METRICS
from autocompress.core.plan import Setting
from autocompress.core.probes import Probe, Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Reason, SettingSpace
from autocompress.core.technique import ArtifactTechnique

# probes whose ratios are closer than this count as equally fast; the order of the technique's own list then decides
SAME_SPEED = 0.05


def int8_space(
    technique: ArtifactTechnique, narrow: Mapping[str, tuple[Setting, ...]], probes: Probes, profile: Profile
) -> SettingSpace:
    """The technique's choices with the options of `narrow`, and the combinations that pay, fastest first."""
    # without a dot-product instruction, x86 adds pairs of u8*s8 products in 16 bits, which overflow
    saturates = probes.int8_dot_product is False and profile.device.arch in (None, "x86_64")
    options = {"reduce_range": (saturates,), **narrow}
    choices = tuple(replace(choice, options=options.get(choice.name, choice.options)) for choice in technique.choices)
    return SettingSpace(choices, profitable_settings(technique.probed, probes.of(technique.name), profile))


def time_matters(profile: Profile) -> bool:
    """True when a budget or the objective asks for speed."""
    return profile.limits(*TIME_METRICS) or profile.objective.wants_speed


def worth(profile: Profile) -> float:
    """The largest latency, as a share of float, at which a quantization is still worth trying.

    1 where time matters, more where the latency budget itself leaves room for it, anything where time does not.
    """
    if not time_matters(profile):
        return math.inf
    room = [budget.limit for budget in profile.budgets if budget.metric == "latency_ms" and budget.relative]
    return max(1.0, *room) if room and not profile.objective.wants_speed else 1.0


def profitable_settings(
    listed: Sequence[Mapping[str, Setting]], probes: Sequence[Probe], profile: Profile
) -> tuple[Mapping[str, Setting], ...]:
    """The listed settings that pay, fastest first; all of them, as listed, where nothing was probed."""
    if not probes:
        return tuple(listed)
    by_settings = {str(dict(probe.settings)): probe for probe in probes}
    known = [settings for settings in listed if str(dict(settings)) in by_settings]
    paying = [one for one in known if (by_settings[str(dict(one))].ratio or 0.0) < worth(profile)] or known[:1]

    def order(settings: Mapping[str, Setting]) -> tuple[bool, int]:
        # probes of the whole model come first, and are compared only with each other
        probe = by_settings[str(dict(settings))]
        best = min(other.ratio or 0.0 for other in probes if other.whole == probe.whole)
        return not probe.whole, round(((probe.ratio or 0.0) / best - 1.0) / SAME_SPEED)

    return tuple(sorted(paying, key=order))


def refuse_what_does_not_pay(title: str, technique: str, probes: Probes, profile: Profile) -> Reason | None:
    """A reason with its figure when every probe of the technique is slower than float and time matters."""
    measured = probes.of(technique)
    failure = probes.failure_of(technique)
    if failure:
        return Reason(f"{title} fails on this model: {failure}", "probe", failure)
    if not measured:
        return None
    best = measured[0]
    if (best.ratio or 0.0) < worth(profile):
        return None
    slower = f"{best.ratio:.1f}x slower" if (best.ratio or 0.0) > 1 + SAME_SPEED else "no faster"
    what = "this model" if best.whole else "this model's dominant layers"
    return Reason(
        f"{title} makes {what} {slower} than float on this device.",
        "probe",
        f"{best.ratio:.2f}x the float latency ({best.low:.2f} to {best.high:.2f}), best of {len(measured)} settings",
    )
