"""Class labels and the outputs they belong to: what does not fit is named with what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.core.aggregate import WITHOUT_LABEL
from autocompress.errors import DataError

Array = NDArray[Any]

PER_TOKEN = 'For a label for each token there is score="token_accuracy".'
# how many classes a score lets an item choose
CHOSEN = {"top1": 1, "top5": 5, "macro_f1": 1}
NUMBERED = "Number the classes from 0, and check that the model is the one for these data."


def require_class_scores(logits: Array, targets: Array, k: int) -> None:
    """Check that outputs hold a score for each class, shape `(n, classes)`.

    Raises:
        DataError: when they have another shape.
    """
    if logits.ndim == 2:
        return
    hint = "Pass a score function that fits the model's outputs."
    if targets.ndim == 2 and targets.dtype.kind in "iub":
        hint = PER_TOKEN
    elif logits.ndim < 2:
        hint = "Return the scores of all classes from forward(), no chosen class and no loss, or pass a score function."
    raise DataError(f"top-{k} needs outputs of shape (n, classes), not {logits.shape}.", where="score", hint=hint)


def require_several_classes(score: Any, shape: tuple[int | None, ...]) -> None:
    """Check that a score by name can tell right answers from wrong ones in outputs of a shape.

    Raises:
        DataError: when there are so few classes that every answer is right.
    """
    k = CHOSEN.get(score, 0) if isinstance(score, str) else 0
    if len(shape) != 2 or shape[1] is None or shape[1] > k:
        return
    one = shape[1] == 1
    raise DataError(
        f"{score} of {shape[1]} class{'' if one else 'es'} is always right.",
        where="score",
        hint="Pass a score function, for example on the sign of the output." if one else "Use top1.",
    )


def require_labels(targets: Array, classes: int, *, trains: bool = False, where: str = "labels") -> None:
    """Check that targets are the numbers of classes, shape `(n,)`.

    `trains` allows those below 0, which say nothing.

    Raises:
        DataError: when they are no whole numbers, of another shape, or out of range.
    """
    if targets.ndim != 1 or targets.dtype.kind not in "iub":
        raise DataError(
            f"labels are {targets.dtype} of shape {targets.shape}, not whole numbers of shape (n,).",
            where=where,
            hint=_advice(targets, classes),
        )
    wrong = np.flatnonzero((targets >= classes) if trains else (targets < 0) | (targets >= classes))
    if len(wrong):
        label = targets[wrong[0]]
        raise DataError(
            f"label {label} is out of range: the model has {classes} classes, 0 to {classes - 1}.",
            where=where,
            hint=WITHOUT_LABEL if label < 0 else NUMBERED,
        )


def _advice(targets: Array, classes: int) -> str:
    if targets.ndim == 2 and targets.shape[1] == 1:
        return "Give them as targets.reshape(-1)."
    one_hot = targets.ndim == 2 and targets.shape[1] == classes and np.isin(targets, (0, 1)).all()
    if one_hot and (targets.sum(1) == 1).all():
        return "One-hot labels become class numbers by targets.argmax(1)."
    if targets.ndim == 2 and targets.dtype.kind in "iub":
        return PER_TOKEN
    if targets.ndim == 1 and np.array_equal(targets, np.rint(targets)):
        return "Give class numbers as integers: targets.astype(int)."
    return 'Numbers to be predicted are scored by score="negative_error", or by a function of your own.'
