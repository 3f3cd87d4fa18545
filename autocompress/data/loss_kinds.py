"""The kind of outputs that a loss is for, as far as its type or its code says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from autocompress.core.output_kinds import OutputKind

_BY_NAME = {
    OutputKind.LOGITS: ("CrossEntropyLoss", "cross_entropy"),
    OutputKind.MULTILABEL_LOGITS: (
        "BCEWithLogitsLoss",
        "MultiLabelSoftMarginLoss",
        "binary_cross_entropy_with_logits",
        "multilabel_soft_margin_loss",
        "sigmoid_focal_loss",
    ),
    OutputKind.SIGMOID: ("BCELoss", "binary_cross_entropy"),
    OutputKind.LOG_PROBABILITIES: ("NLLLoss", "nll_loss"),
    OutputKind.EMBEDDING: (
        "CosineEmbeddingLoss",
        "cosine_embedding_loss",
        "cosine_similarity",
    ),
    OutputKind.VALUES: (
        "MSELoss",
        "L1Loss",
        "SmoothL1Loss",
        "HuberLoss",
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
    ),
}
KIND_OF = {name: kind for kind, names in _BY_NAME.items() for name in names}


def kind_of_loss(loss: Any) -> tuple[OutputKind, str] | None:
    """The kind of outputs that a loss takes, and the name that says so; None where none or several say it.

    Known are torch's losses, functions and modules, themselves or as what a function of the user's calls.
    """
    found = {KIND_OF[name]: name for name in _names(loss) if name in KIND_OF}
    return next(iter(found.items())) if len(found) == 1 else None


def _names(loss: Any) -> Iterator[str]:
    while isinstance(loss, functools.partial):
        loss = loss.func
    if isinstance(loss, nn.Module):
        yield type(loss).__name__
        return
    if getattr(loss, "__module__", None) == "torch.nn.functional":
        yield loss.__name__
        return
    function = getattr(loss, "__func__", loss)
    if not inspect.isfunction(function):
        return
    used = inspect.getclosurevars(function)
    yield from used.unbound
    for name, value in (*used.globals.items(), *used.nonlocals.items()):
        yield type(value).__name__ if isinstance(value, nn.Module) else getattr(value, "__name__", name)
