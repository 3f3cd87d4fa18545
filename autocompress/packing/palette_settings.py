"""Settings of palettes, and where they are refused, whether or not they are trained."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Setting
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import time_matters
from autocompress.core.search_space import Choice, Reason
from autocompress.runtimes.radix import digits_for

KINDS = (Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.RECURRENT, Kind.EMBEDDING)
# what fewer values make smaller: a file takes as much memory once it is loaded as it did before
SMALL = ("size_mb", "download_mb")
# the share of the latency before that a file which is unpacked when it is loaded takes at most
UNPACKED = 1.1
# two nodes that unpack it, a shape, a table of values
LAYER_BYTES = 80
# layers get values by what they do to the outputs, in the bytes that so many values in each of them would take; or all
# the same number
MEASURED, EVEN = "measured", "even"
ENTRIES = Choice("entries", (16, 8, 6, 4, 12, 9, 5, 3, 2, 32, 64, 128, 256), describes="values of a layer's weights")
GROUPS = Choice("groups", (1, 4, 16, 64), describes="ranges of a weight's first axis with values of their own")
ALLOCATION = Choice(
    "allocation",
    (EVEN, MEASURED),
    structural=False,
    describes="whether layers that matter more get more values, in the same bytes",
)


def weight_bytes(settings: Mapping[str, Setting]) -> float:
    """The size in bytes of a weight's index."""
    return digits_for(int(settings[ENTRIES.name])).bits / 8


def refusal(technique: str, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
    """The reason against palettes: nobody asks for a small file, or the runtime unpacks at each call.

    `technique` names the one whose probe tells the latter.
    """
    if not any(layer.kind in KINDS for layer in facts.layers):
        return Reason("palettes cover no layer of this model.", "quantizable", "no layer with weights")
    if not (profile.limits(*SMALL) or profile.objective.shrinks == "size"):
        return Reason(
            "fewer values make the file smaller, not faster, and nothing asks for a smaller file.",
            "size",
            ", ".join(budget.metric for budget in profile.budgets) or "no budget",
        )
    failure, measured = probes.failure_of(technique), probes.of(technique)
    if failure:
        return Reason(f"palettes fail on this model: {failure}", "probe", failure)
    best = next(iter(measured), None)
    if best is not None and time_matters(profile) and (best.low or 0.0) > UNPACKED:
        return Reason(
            "this runtime unpacks the weights at each call instead of once.",
            "probe",
            f"{best.ratio:.2f}x the latency before ({best.low:.2f} to {best.high:.2f})",
        )
    return None
