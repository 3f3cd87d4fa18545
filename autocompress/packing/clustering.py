"""Clusters of a layer's weights, found for the least error of the layer's output.

Centroids start as those of weighted k-means (see `whole_clusters`), weights are assigned with each error passed on (see
`error_feedback`), and centroids are then those of least squares for the assignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from autocompress.core.source import Array
from autocompress.packing.error_feedback import rounded_with_feedback
from autocompress.packing.layer_weights import LayerWeight
from autocompress.packing.whole_clusters import centroids, nearest
from autocompress.runtimes.palette_storage import Palette

Tensor = torch.Tensor
# rows that are taken into least squares at once
ROWS = 64


@dataclass(frozen=True)
class Clusters:
    """The number of `entries` of a palette, and of `groups`: ranges of the first axis with a table each.

    `passes` is how often weights are assigned with errors passed on; with 0 each goes to the nearest entry.
    """

    entries: int
    groups: int = 1
    passes: int = 2

    def groups_of(self, weight: LayerWeight) -> int:
        """Groups that divide the tensor's first axis: as many as asked for, or the next fewer."""
        rows = weight.shape[0]
        return next(count for count in range(min(self.groups, rows), 0, -1) if rows % count == 0)


def clustered(weight: LayerWeight, whole: NDArray[np.int64], moments: Tensor | None, clusters: Clusters) -> Palette:
    """The palette of a weight's whole numbers, of its shape and less their zero point.

    `moments` are the second moments of its input (see `second_moments`), None where they are not known: then nothing
    is passed on.
    """
    groups = clusters.groups_of(weight)
    importance = _importance(weight, moments)
    by_group = whole.reshape(groups, -1)
    weights = importance.reshape(groups, -1)
    tables = [centroids(by_group[one], weights[one], clusters.entries) for one in range(groups)]
    indices = np.stack([nearest(by_group[one].astype(np.float64), tables[one]) for one in range(groups)])
    if moments is not None:
        for turn in range(clusters.passes):
            if turn:
                tables = _refitted(weight, whole, moments, tables, indices)
            rounded = _with_feedback(weight, whole, moments, tables)
            indices = np.stack(
                [nearest(one, table) for one, table in zip(rounded.reshape(groups, -1), tables, strict=True)]
            )
    return Palette(_table(tables, weight.zero), indices, weight.shape)


def _importance(weight: LayerWeight, moments: Tensor | None) -> NDArray[np.float64]:
    """What a squared error of each whole number does to the layer's output."""
    steps = weight.scales() ** 2
    if moments is None:
        return np.ascontiguousarray(steps)
    diagonal = torch.diagonal(moments, dim1=1, dim2=2).double().numpy()[:, None]
    ones = np.ones_like(weight.matrix(np.empty(weight.shape, dtype=np.int8)), dtype=np.float64)
    return np.ascontiguousarray(weight.tensor_of(ones * diagonal) * steps)


def _with_feedback(
    weight: LayerWeight, whole: NDArray[np.int64], moments: Tensor, tables: list[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """The whole numbers rounded to entries of their group's table, each error passed on."""
    width = max(len(table) for table in tables)
    entries = torch.from_numpy(np.stack([np.pad(table, (0, width - len(table)), "edge") for table in tables])).double()
    first_axis = np.arange(weight.shape[0]) * len(tables) // weight.shape[0]
    of_value = np.broadcast_to(first_axis.reshape(-1, *[1] * (len(weight.shape) - 1)), weight.shape)
    table_of = torch.from_numpy(np.ascontiguousarray(weight.matrix(of_value)))
    matrix = torch.from_numpy(np.ascontiguousarray(weight.matrix(whole))).double()
    results = []
    for part, moment, table in zip(matrix, moments, table_of, strict=True):
        results.append(rounded_with_feedback(part, moment, _Nearest(entries, table)))
    return np.ascontiguousarray(weight.tensor_of(torch.stack(results).numpy()))


class _Nearest:
    """Rounds columns to the nearest entry of each value's table."""

    def __init__(self, entries: Tensor, table_of: Tensor) -> None:
        self._entries, self._table_of = entries, table_of

    def __call__(self, values: Tensor, column: int) -> Tensor:
        tables = self._entries[self._table_of[:, column]]
        places = (tables - values[:, None]).abs().argmin(1, keepdim=True)
        return tables.gather(1, places)[:, 0]


def _refitted(
    weight: LayerWeight,
    whole: NDArray[np.int64],
    moments: Tensor,
    tables: list[NDArray[np.int64]],
    indices: NDArray[np.int64],
) -> list[NDArray[np.int64]]:
    """Tables with the least squared error of the layer's output for this assignment, in whole numbers."""
    width, groups = max(len(table) for table in tables), len(tables)
    # each table has its own range of unknowns
    unknown = indices + np.arange(groups)[:, None] * width
    places = torch.from_numpy(np.ascontiguousarray(weight.matrix(unknown.reshape(weight.shape))))
    matrix = torch.from_numpy(np.ascontiguousarray(weight.matrix(whole))).double()
    steps = torch.from_numpy(np.ascontiguousarray(weight.matrix(weight.scales() ** 2))).double()[:, :, :1]
    left = torch.zeros(groups * width, groups * width, dtype=torch.float64)
    right = torch.zeros(groups * width, dtype=torch.float64)
    for part, place, step, moment in zip(matrix, places, steps, moments.double(), strict=True):
        for start in range(0, len(part), ROWS):
            rows = slice(start, start + ROWS)
            chosen = torch.nn.functional.one_hot(place[rows], groups * width).double()
            through = moment @ chosen
            left += torch.einsum("rck,rcl,r->kl", chosen, through, step[rows, 0])
            right += torch.einsum("rck,rc,r->k", through, part[rows], step[rows, 0])
    before = torch.from_numpy(np.concatenate([np.pad(table, (0, width - len(table)), "edge") for table in tables]))
    damping = 1e-6 * float(torch.diagonal(left).mean()) + 1e-30
    fitted = torch.linalg.solve(
        left + damping * torch.eye(len(left), dtype=torch.float64), right + damping * before.double()
    )
    low, high = int(whole.min()), int(whole.max())
    found = fitted.numpy().reshape(groups, width)
    return [
        np.unique(np.rint(one[: len(table)]).clip(low, high).astype(np.int64))
        for one, table in zip(found, tables, strict=True)
    ]


def _table(tables: list[NDArray[np.int64]], zero: int) -> Array:
    """Tables of one length, with the zero point that the file counts from."""
    width = max(len(table) for table in tables)
    filled = np.stack([np.pad(table, (0, width - len(table)), "edge") for table in tables]) + zero
    return filled.astype(np.int8 if filled.min() < 0 or filled.max() < 128 else np.uint8)
