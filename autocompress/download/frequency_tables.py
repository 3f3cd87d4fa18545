"""Few tables of frequencies for many groups of symbols.

Which table each group gets is found as in k-means, with code lengths as distance. Groups are, for instance, the input
channels of a weight. Channels of all weights share tables, since a table of 256 frequencies costs as much as many
symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocompress.download.acz_decoder import frequencies

ROUNDS = 6
# of the symbols of all groups, while groups choose their table
SMOOTHING = 0.02
# about what the code of one level of a table takes, in bits
LEVEL_BITS = 3.0
NUMBERS_OF_TABLES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
# a larger number of tables that is worse than the best so far by this share ends the search
WORSE = 0.002
Counts = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tables:
    """The table of each group, the levels of each table, and the bits that the symbols of each group take."""

    classes: NDArray[np.intp]
    levels: tuple[bytes, ...]
    group_bits: NDArray[np.float64]

    @property
    def bits(self) -> float:
        """Bits of all symbols, tables and classes included."""
        return float(self.group_bits.sum()) + LEVEL_BITS * sum(len(one) for one in self.levels)

    def bits_of_parts(self, groups: Sequence[int]) -> list[float]:
        """Bits of the symbols of each part, by how many groups each has, one after another; without tables."""
        ends = np.cumsum(groups)
        return [float(self.group_bits[end - size : end].sum()) for end, size in zip(ends, groups, strict=True)]


def levels_of(counts: Sequence[float] | Counts) -> bytes:
    """Levels of a table, eighths of an octave, for symbols that occur so often.

    The rarest have level 1 or more. Each symbol that occurs has a level, and none after the last of them.
    """
    numbers = np.asarray(counts, dtype=np.float64)
    numbers = numbers[: int(np.flatnonzero(numbers)[-1]) + 1]
    # the largest is at level 160: rarer ones reach down to 2**-20 of it
    scaled = 160 + 8 * np.log2(np.maximum(numbers, 1e-9) / numbers.max())
    levels = np.where(numbers > 0, np.clip(np.rint(scaled), 1, 160), 0)
    return levels.astype(np.uint8).tobytes()


def bits_of(levels: bytes) -> NDArray[np.float32]:
    """Bits of each of 256 symbols in a table; those that do not occur in it are far too expensive."""
    bits = np.full(256, 64.0, dtype=np.float32)
    sizes = np.array(frequencies(levels), dtype=np.float64)
    bits[: len(sizes)] = np.where(sizes > 0, 14 - np.log2(np.maximum(sizes, 1e-9)), 64.0)
    return bits


def tables_for(counts: Counts, most: int) -> Tables:
    """The number of tables, at most `most`, and their assignment with which all takes the fewest bits.

    `counts` has shape `(groups, 256)`: how often each symbol occurs in each group.
    """
    best = clustered(counts, 1)
    grown = best
    for number in NUMBERS_OF_TABLES[1:]:
        if number > min(most, len(counts)):
            break
        # two beginnings: groups that are alike in how much they are spread, and those that fit the tables so far worst
        grown = _refined(counts, _with_worst_apart(counts, grown, number))
        found = min(clustered(counts, number), grown, key=lambda one: one.bits)
        if found.bits < best.bits:
            best = found
        elif found.bits > best.bits * (1 + WORSE):
            break
    return best


def clustered(counts: Counts, number: int) -> Tables:
    """So many tables, or fewer where some stay empty, for groups that begin in the order of their entropy."""
    order = np.argsort(_entropies(counts), kind="stable")
    classes = np.empty(len(counts), dtype=np.intp)
    classes[order] = np.arange(len(counts)) * number // len(counts)
    return _refined(counts, classes)


def _with_worst_apart(counts: Counts, known: Tables, number: int) -> NDArray[np.intp]:
    """Classes of the tables so far, and one of its own for each group that fits them worst."""
    lost = known.group_bits - counts.sum(axis=1) * _entropies(counts)
    more = number - len(known.levels)
    classes = known.classes.copy()
    classes[np.argsort(-lost, kind="stable")[:more]] = len(known.levels) + np.arange(more)
    return classes


def _refined(counts: Counts, classes: NDArray[np.intp]) -> Tables:
    """The classes after some rounds of Lloyd's algorithm with code lengths as distance."""
    shares = counts.sum(axis=0, dtype=np.float64) / counts.sum(dtype=np.float64)
    for _ in range(ROUNDS):
        numbered, sums = _sums(counts, classes)
        used = np.bincount(numbered)
        if len(used) == 1:
            break
        # a symbol that a table lacks is no reason to keep a group out of it
        mixed = sums + SMOOTHING * sums.sum(axis=1, keepdims=True) * shares
        lengths = np.log2(mixed.sum(axis=1, keepdims=True)) - np.log2(np.maximum(mixed, 1e-9))
        chosen = -np.log2(used / len(classes))
        moved = np.argmin(counts @ lengths.astype(np.float32).T + chosen, axis=1)
        if (moved == numbered).all():
            break
        classes = moved
    classes, sums = _sums(counts, classes)
    levels = tuple(levels_of(one) for one in sums)
    return Tables(classes, levels, _group_bits(counts, classes, levels))


def _sums(counts: Counts, classes: NDArray[np.intp]) -> tuple[NDArray[np.intp], Counts]:
    """Classes numbered without gaps, and how often each symbol occurs in them."""
    used, numbered = np.unique(classes, return_inverse=True)
    # whole numbers, so that no order of adding changes them
    return numbered, (numbered[None, :] == np.arange(len(used))[:, None]).astype(np.float32) @ counts


def _group_bits(counts: Counts, classes: NDArray[np.intp], levels: tuple[bytes, ...]) -> NDArray[np.float64]:
    """Bits of the symbols of each group, and of its class."""
    lengths = np.stack([bits_of(one) for one in levels])
    chosen = -np.log2(np.bincount(classes, minlength=len(levels)) / len(classes))
    return np.asarray((counts.astype(np.float64) * lengths[classes]).sum(axis=1) + chosen[classes])


def _entropies(counts: Counts) -> NDArray[np.float64]:
    """Bits of a symbol of each group."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return -np.asarray((shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1), dtype=np.float64)
