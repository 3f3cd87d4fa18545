"""Kernels of convolutions, whose neighbouring weights are alike.

Tables are chosen by the symbols before and above a place. All kernels of a weight are coded place by place, the first
place of all, then the second, so that what a table is chosen by was decoded before, whichever way symbols are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocompress.download.acz_decoder import KernelModel
from autocompress.download.frequency_tables import Counts, clustered, tables_for
from autocompress.download.symbol_coder import Symbols

# fewer symbols of a kind do not pay for a model
LEAST_SYMBOLS = 512
# classes of channels, and bins of symbols where they are not few: more of them cost as much as they save
CLASSES, BINS, FEW = 4, 6, 8
# about what the table of a cell takes in the description, in bits
CELL_BITS = 3.0


@dataclass(frozen=True)
class Kernel:
    """The kernels of a weight: so many places, so many in a row."""

    places: int
    width: int


@dataclass(frozen=True, eq=False)
class Modelled:
    """A model of kernels with tables of its own, the classes of all groups, and the bits that all takes."""

    model: KernelModel
    levels: tuple[bytes, ...]
    classes: NDArray[np.intp]
    bits: float


def kernel_tables(model: KernelModel, classes: Symbols, symbols: Symbols, place: int) -> Symbols:
    """The tables of the symbols at one place of all kernels; those at the places before are known."""
    return np.frombuffer(model.tables, dtype=np.uint8)[_cells(model, classes, symbols, place)]


def _cells(model: KernelModel, classes: Symbols, symbols: Symbols, place: int) -> NDArray[np.int64]:
    side = model.number_of_bins + 1
    bins = np.frombuffer(model.bins, dtype=np.uint8)
    own = classes[place :: model.places].astype(np.int64)

    def bins_at(other: int) -> NDArray[np.int64] | int:
        if other < 0:
            return model.number_of_bins
        return bins[symbols[other :: model.places][: len(own)]].astype(np.int64)

    cells: NDArray[np.int64] = (own * model.places + place) * side**2
    return cells + bins_at(place - 1) * side + bins_at(place - model.width)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights with the same kernels.

    `symbols` are symbols below `base` and the group of each of them, counted over all weights. `counts` is how often
    each symbol occurs in each group. `signed` symbols above 127 stand for negative numbers.
    """

    kernel: Kernel
    symbols: list[tuple[Symbols, NDArray[np.intp]]]
    counts: Counts
    base: int
    signed: bool


def model_for(weights: Weights, most: int) -> Modelled:
    """The model, of at most so many tables, with which these weights take the fewest bits."""
    found = [_model(weights, number, most) for number in (1, CLASSES)]
    return min(found, key=lambda one: one.bits)


def _model(weights: Weights, most_classes: int, most: int) -> Modelled:
    kernel = weights.kernel
    chosen = clustered(weights.counts, min(most_classes, len(weights.counts)))
    number_of_classes = len(chosen.levels)
    bins = _bins(weights.counts.sum(axis=0)[: weights.base], signed=weights.signed)
    number_of_bins = int(max(bins)) + 1
    cells = number_of_classes * kernel.places * (number_of_bins + 1) ** 2
    empty = KernelModel(kernel.places, kernel.width, number_of_bins, bins, number_of_classes, bytes(cells))
    counts = np.zeros(cells * 256, dtype=np.int64)
    for symbols, group in weights.symbols:
        classes = chosen.classes[group].astype(np.uint8)
        for place in range(kernel.places):
            at = _cells(empty, classes, symbols, place) * 256 + symbols[place :: kernel.places]
            counts += np.bincount(at, minlength=len(counts))
    by_cell = counts.reshape(cells, 256)
    used = np.flatnonzero(by_cell.any(axis=1))
    tables = tables_for(by_cell[used].astype(np.float32), most)
    # a cell that does not occur has the table of the one before it, which is short in the description
    place_of = np.maximum(np.searchsorted(used, np.arange(cells), side="right") - 1, 0)
    model = empty._replace(tables=tables.classes[place_of].astype(np.uint8).tobytes())
    shares = np.bincount(chosen.classes) / len(chosen.classes)
    class_bits = -float(len(chosen.classes) * (shares * np.log2(shares)).sum())
    return Modelled(model, tables.levels, chosen.classes, tables.bits + class_bits + CELL_BITS * len(used))


def _bins(counts: NDArray[np.float32], *, signed: bool) -> bytes:
    """The bin of each symbol: its own where they are few, else about as many symbols in each."""
    last = int(np.flatnonzero(counts)[-1])
    if last < FEW and not signed:
        return bytes(np.minimum(np.arange(len(counts)), last).astype(np.uint8))
    order = np.arange(len(counts)) ^ (128 if signed else 0)
    in_order = counts.astype(np.float64)[order]
    middles = (np.cumsum(in_order) - in_order / 2) / in_order.sum()
    bins = np.empty(len(counts), dtype=np.uint8)
    bins[order] = np.minimum(middles * BINS, BINS - 1)
    # numbered without gaps
    return np.unique(bins, return_inverse=True)[1].astype(np.uint8).tobytes()
