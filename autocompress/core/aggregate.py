"""Scores computed from all items together: F1, rank correlation, perplexity.

No single item has a share of its own in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from autocompress.core.outputs import first_of
from autocompress.errors import DataError

# an item whose label is below 0, such as -100, has none
WITHOUT_LABEL = "Leave items without a label (below 0) out of test and val; in train they are allowed."
FLOATS = NDArray[np.float64]


@dataclass(frozen=True)
class Aggregate:
    """A score computed from all items together; higher is better, as for every task's `score`.

    `records(outputs, targets)` gives each item's contribution, shape `(n, k)` or `(n,)`; `value(records)` computes the
    score from any number of contributions, shape `(n, k)`. `is_rate` says that the score lies between 0 and 1, so that
    accuracy budgets in points make sense.
    """

    name: str
    records: Callable[[Any, Any], Any]
    value: Callable[[FLOATS], float]
    is_rate: bool = False


def first_output(outputs: Any) -> NDArray[Any]:
    """The output that built-in scores take, as an array: `logits` where there is one, else the first.

    Raises:
        DataError: when it holds values that are not finite.
    """
    values = np.asarray(first_of(outputs))
    # a comparison with NaN is false, so that no class would rank before the right one
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("outputs are not finite (NaN or infinity).", where="score")
    return values


def _classes(outputs: Any, targets: NDArray[Any]) -> FLOATS:
    """Records of the predicted and the right class of each item."""
    logits = first_output(outputs)
    if logits.ndim != 2 or targets.ndim != 1 or targets.dtype.kind not in "iub":
        raise DataError(
            f"F1 needs outputs of shape (n, classes) and whole numbers as labels, not {logits.shape} and "
            f"{targets.dtype}.",
            where="score",
        )
    if (targets < 0).any():
        raise DataError(
            f"label {targets[targets < 0][0]} is of no class, and F1 counts every item.",
            where="labels",
            hint=WITHOUT_LABEL,
        )
    return np.stack([logits.argmax(1), targets], axis=1).astype(np.float64)


def macro_f1(records: FLOATS) -> float:
    """Macro F1: the mean, over the classes that occur, of the harmonic mean of precision and recall."""
    given, right = records.astype(np.int64).T
    classes = int(max(given.max(), right.max())) + 1
    hits = np.bincount(right[given == right], minlength=classes)
    counted = np.bincount(given, minlength=classes) + np.bincount(right, minlength=classes)
    present = counted > 0
    return float(np.mean(2 * hits[present] / counted[present]))


def _pairs(outputs: Any, targets: NDArray[Any]) -> FLOATS:
    values = first_output(outputs)
    if values.size != len(targets) or targets.size != len(targets):
        raise DataError(
            f"a correlation needs one number per item, not {values.shape} and {targets.shape}.", where="score"
        )
    return np.stack([values.reshape(-1), targets.reshape(-1)], axis=1).astype(np.float64)


def spearman(records: FLOATS) -> float:
    """Spearman's rank correlation of outputs and targets; 0 where one of them does not vary."""
    ranks = stats.rankdata(records, axis=0)
    spread = ranks.std(axis=0)
    if not spread.all():
        return 0.0
    return float(((ranks - ranks.mean(axis=0)).prod(axis=1)).mean() / spread.prod())


def _token_losses(outputs: Any, targets: NDArray[Any]) -> FLOATS:
    """Records of each item's summed negative log-likelihood and its number of tokens.

    Targets below 0 are padding.
    """
    logits = first_output(outputs)
    if logits.ndim != 3 or logits.shape[:2] != targets.shape:
        raise DataError(
            f"perplexity needs outputs of shape (n, tokens, classes) and targets (n, tokens), not {logits.shape} and "
            f"{targets.shape}.",
            where="score",
        )
    counted = targets >= 0
    chances = special.log_softmax(logits.astype(np.float64), axis=-1)
    own = np.take_along_axis(chances, np.where(counted, targets, 0)[..., None].astype(np.int64), axis=-1)[..., 0]
    return np.stack([-(own * counted).sum(axis=1), counted.sum(axis=1)], axis=1).astype(np.float64)


def negative_perplexity(records: FLOATS) -> float:
    """Minus the perplexity, the exponential of the mean loss of all tokens, so that higher is better."""
    losses, tokens = records.sum(axis=0)
    return -float(np.exp(losses / tokens)) if tokens > 0 else float("nan")


AGGREGATES: Mapping[str, Aggregate] = {
    one.name: one
    for one in (
        Aggregate("macro_f1", _classes, macro_f1, is_rate=True),
        Aggregate("spearman", _pairs, spearman),
        Aggregate("negative_perplexity", _token_losses, negative_perplexity),
    )
}
