"""How far the outputs of two networks are from each other, by what the outputs are.

KL(original || other) for classes and for each yes or no, the cosine distance for embeddings, the squared error for
everything else. Probabilities are compared as what they are: softened by a temperature T they are p^(1/T) over its sum,
which is the softmax of the logits they were made of divided by T (Hinton, Vinyals and Dean, 2015).

The spread of the original's outputs is the same divergence from them to one answer for all items, their mean. Over the
spread, all kinds of outputs have one scale: 0 is the original, and 1 is what always gives the mean.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from autocompress.core.output_kinds import OF_CLASSES, OF_YES_OR_NO, OutputFact, OutputKind

# probabilities below it count as it: float32 cannot tell 1 from 1 - 1e-8
LEAST, LEAST_OF_TWO = 1e-12, 1e-6
# logits of classes that do not count
NEVER = -1e4
# spread below which an output counts as constant: of squared errors relative to the mean square, of others as it is
LEAST_RELATIVE, LEAST_SPREAD = 1e-9, 1e-6


def rows_of(fact: OutputFact, values: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
    """The values that count, in the form that `distance` and `spread` take.

    It is `(places, classes)` for kinds with an axis. `counted` says which places count, shape `(n, ...)` without the
    axis of classes, or with it where it says which classes do.
    """
    if fact.axis is None:
        return values if counted is None else values[counted]
    if counted is not None and counted.shape == values.shape:
        values = _without(fact.kind, values, ~counted)
        counted = None
    last = values.movedim(fact.axis, -1)
    return last.reshape(-1, last.shape[-1]) if counted is None else last[counted].reshape(-1, last.shape[-1])


def _without(kind: OutputKind, values: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    return values.masked_fill(left_out, NEVER if kind in (OutputKind.LOGITS, OutputKind.LOG_PROBABILITIES) else 0.0)


def distance(
    kind: OutputKind, found: torch.Tensor, wanted: torch.Tensor, temperature: float = 1.0, *, relative: bool = False
) -> torch.Tensor | None:
    """The divergence of outputs from the original's, both as `rows_of` gives them.

    That of classes is in nats per place, that of yes or no in nats per number, both times T^2. `relative` divides by
    the original's spread; None where that says nothing, since the original's outputs do not vary.
    """
    if relative:
        if wanted.numel() < 2:
            return None
        by = spread(kind, wanted, temperature)
        least = LEAST_RELATIVE * wanted.square().mean() if _is_squared(kind) else LEAST_SPREAD
        if not bool(by > least):
            return None
        return _distance(kind, found, wanted, temperature) / by
    # the mean of nothing would be NaN
    return _distance(kind, found, wanted, temperature) if wanted.numel() else found.sum()


def _distance(kind: OutputKind, found: torch.Tensor, wanted: torch.Tensor, t: float) -> torch.Tensor:
    if kind in OF_CLASSES:
        logs = _log_softmax(kind, found, t), _log_softmax(kind, wanted, t)
        return t * t * functional.kl_div(*logs, log_target=True, reduction="batchmean")
    if kind in OF_YES_OR_NO:
        return t * t * _of_two(_logits(kind, wanted) / t, _logits(kind, found) / t).mean()
    if kind is OutputKind.EMBEDDING:
        return (1 - functional.cosine_similarity(found, wanted, dim=-1)).mean()
    return functional.mse_loss(found, wanted)


def spread(kind: OutputKind, wanted: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """The divergence of the original's outputs from their mean over items and places."""
    t = temperature
    if kind in OF_CLASSES:
        logs = _log_softmax(kind, wanted, t)
        mean = logs.exp().mean(0, keepdim=True).clamp_min(LEAST).log()
        return t * t * (logs.exp() * (logs - mean)).sum(-1).mean()
    if kind in OF_YES_OR_NO:
        logits = _logits(kind, wanted) / t
        mean = torch.special.logit(logits.sigmoid().mean(0, keepdim=True), eps=LEAST_OF_TWO)
        return t * t * _of_two(logits, mean).mean()
    if kind is OutputKind.EMBEDDING:
        length: torch.Tensor = torch.linalg.vector_norm(functional.normalize(wanted, dim=-1).mean(0))
        return 1 - length
    return wanted.var()


def _is_squared(kind: OutputKind) -> bool:
    return kind not in (*OF_CLASSES, *OF_YES_OR_NO, OutputKind.EMBEDDING)


def _log_softmax(kind: OutputKind, rows: torch.Tensor, temperature: float) -> torch.Tensor:
    if kind is OutputKind.PROBABILITIES:
        rows = rows.clamp_min(LEAST).log()
    return functional.log_softmax(rows / temperature, 1)


def _logits(kind: OutputKind, values: torch.Tensor) -> torch.Tensor:
    return torch.special.logit(values, eps=LEAST_OF_TWO) if kind is OutputKind.SIGMOID else values


def _of_two(wanted: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """KL of a yes or no between two logits, elementwise."""
    yes = functional.logsigmoid(wanted) - functional.logsigmoid(found)
    no = functional.logsigmoid(-wanted) - functional.logsigmoid(-found)
    chance = wanted.sigmoid()
    return chance * yes + (1 - chance) * no
