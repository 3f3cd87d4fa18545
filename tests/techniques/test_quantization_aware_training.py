"""Quantization-aware training: which settings it proposes for which networks."""

from __future__ import annotations

import pytest

from autocompress.core.facts import Facts, Kind
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.techniques import QuantizationAwareTraining
from autocompress.testing.finish_technique_suite import facts_with


@pytest.mark.parametrize(
    ("facts", "ranges", "optimizer"),
    [
        (facts_with(Kind.CONVOLUTION, Kind.CONVOLUTION, Kind.LINEAR), ["fixed", "learned"], "sgd"),
        (facts_with(Kind.LINEAR, Kind.ATTENTION), ["fixed"], "adamw"),
        (facts_with(Kind.RECURRENT, Kind.LINEAR), ["fixed"], "adamw"),
    ],
)
def test_ranges_are_learned_for_convolutions_alone_and_never_first(
    facts: Facts, ranges: list[str], optimizer: str
) -> None:
    proposed = list(QuantizationAwareTraining().space(facts, Probes(), Profile("any")).grid())
    # all kinds of ranges with the shorter training, before any longer one
    assert [(one["steps"], one["ranges"]) for one in proposed] == [
        (steps, one) for steps in (300, 1000) for one in ranges
    ]
    assert {one["optimizer"] for one in proposed} == {optimizer}
