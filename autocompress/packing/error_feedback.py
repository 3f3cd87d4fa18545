"""Rounds weights to a set of values, and passes each error on to the weights not yet rounded.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023 (eq. 2
and 3; section 3.3 for the Cholesky form), with the columns of the largest second moments first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Tensor = torch.Tensor
# of the mean second moment, added to all of them, so that the inverse exists
DAMPING = 0.01
# columns whose errors are passed on to the others together
BLOCK = 64


def rounded_with_feedback(matrix: Tensor, moments: Tensor, rounding: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The matrix of shape `(rows, columns)` in values that `rounding` gives.

    `moments`, of shape `(columns, columns)`, are the second moments of what the columns are multiplied with.
    `rounding` takes values of shape `(rows,)` and the index of their column; columns that are never multiplied with
    anything are only rounded.
    """
    order = torch.diagonal(moments).argsort(descending=True, stable=True)
    left = matrix[:, order].to(torch.float64, copy=True)
    factor = _inverse_factor(moments[order][:, order].double())
    columns = left.shape[1]
    result = torch.empty_like(left)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = torch.zeros(len(left), end - start, dtype=left.dtype)
        for column in range(start, end):
            result[:, column] = rounding(left[:, column], int(order[column]))
            error = (left[:, column] - result[:, column]) / factor[column, column]
            left[:, column:end] -= error[:, None] * factor[column, column:end]
            errors[:, column - start] = error
        left[:, end:] -= errors @ factor[start:end, end:]
    found = torch.empty_like(result)
    found[:, order] = result
    return found


def _inverse_factor(moments: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped moments."""
    diagonal = torch.diagonal(moments)
    mean = float(diagonal.mean())
    if mean <= 0:
        return torch.eye(len(moments), dtype=moments.dtype)
    damped = moments + torch.diag(torch.full_like(diagonal, DAMPING * mean))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    # rounding may leave the inverse slightly asymmetric
    found: Tensor = torch.linalg.cholesky((inverse + inverse.T) / 2, upper=True)
    return found
