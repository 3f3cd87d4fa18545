"""Accuracy that a kind of plan usually loses, with the source of every range.

These figures are shown only: they order nothing and decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.core.facts import Family
from autocompress.core.plan import Effort, Stage
from autocompress.core.search_space import ExpectedDrop
from autocompress.core.technique import ArtifactTechnique, Technique

QUANTIZED: dict[Family, ExpectedDrop] = {
    Family.CNN: ExpectedDrop(0.0, 2.0, "Krishnamoorthi, Quantizing deep convolutional networks, 2018: within 2 points"),
    Family.TRANSFORMER: ExpectedDrop(0.0, 2.1, "benchmarks/tasks.py: MiniLM on SST-2 lost 0.0, at most 2.05"),
    Family.RNN: ExpectedDrop(0.0, 1.1, "benchmarks/tasks.py: an LSTM on HAR lost 0.3, at most 1.06"),
}
FEW_BITS: dict[Family, ExpectedDrop] = {
    Family.TRANSFORMER: ExpectedDrop(
        0.0, 1.0, "docs/techniques/blockwise_weights.md: MiniLM on SST-2 lost 0.9 in blocks of 32, 0.8 in blocks of 128"
    ),
}
RECOVERED: dict[Family, ExpectedDrop] = {
    Family.CNN: ExpectedDrop(0.5, 2.0, "benchmarks/structure.py: ResNets on CIFAR-10, 10 to 60 minutes"),
    Family.MLP: ExpectedDrop(0.0, 1.0, "benchmarks/tasks.py: an MLP on MNIST lost 0.5, at most 0.93, at a ninth"),
    Family.TRANSFORMER: ExpectedDrop(
        0.0, 2.0, "Sajjad et al., On the effect of dropping layers, 2023: 98 % of the score without 40 % of the layers"
    ),
}


def expected_drop(family: Family, techniques: Sequence[Technique], effort: Effort) -> ExpectedDrop | None:
    """The expected loss in points of accuracy for a plan of these techniques; None where no source says.

    Nothing is known of structure that is cut and not trained: it costs anything from nothing to all.
    """
    if effort is Effort.TRAINING:
        return RECOVERED.get(family)
    widths = {one.value_bytes if isinstance(one, ArtifactTechnique) else None for one in techniques}
    # what leaves one byte of a weight
    if widths == {1}:
        return QUANTIZED.get(family)
    blocks = widths == {0.5} and all(one.stage is Stage.PRECISION for one in techniques)
    return FEW_BITS.get(family) if blocks else None
