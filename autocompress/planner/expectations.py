"""What accuracy a kind of plan usually costs, with the source of every range. It orders nothing and decides nothing."""

from __future__ import annotations

from collections.abc import Collection

from autocompress.facts import Family
from autocompress.ladder import ExpectedDrop
from autocompress.plan import Effort

WITHIN_TWO = ExpectedDrop(0.0, 2.0, "Krishnamoorthi, Quantizing deep convolutional networks, 2018: within 2 points")
# by family; None stands for any other
QUANTIZED: dict[Family | None, ExpectedDrop] = {
    Family.CNN: WITHIN_TWO,
    Family.TRANSFORMER: ExpectedDrop(0.0, 1.0, "Zafrir et al., Q8BERT, 2019: within 1 % of the original's score"),
}
RECOVERED: dict[Family | None, ExpectedDrop] = {
    Family.CNN: ExpectedDrop(0.5, 2.0, "benchmarks/structure.py: ResNets on CIFAR-10, 10 to 30 minutes"),
    Family.TRANSFORMER: ExpectedDrop(
        0.0, 2.0, "Sajjad et al., On the effect of dropping layers, 2023: 98 % of the score without 40 % of the layers"
    ),
}


def expected_drop(family: Family, techniques: Collection[str], effort: Effort) -> ExpectedDrop | None:
    """Points of accuracy that a plan of these techniques is expected to lose; None where no source says anything.

    Nothing is known of structure that is cut and not trained: it costs anything from nothing to all.
    """
    if effort is Effort.TRAINING:
        return RECOVERED.get(family)
    if all(name.startswith("int8") for name in techniques):
        return QUANTIZED.get(family)
    return None
