"""Symbols with static frequencies as interleaved rANS (Duda, 2013; Giesen, 2014) with numpy.

Symbol i belongs to lane i modulo the number of lanes, so that each step codes one symbol of every lane. States have 32
bits and are filled up by words of 16 bits, at most one to a step and lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocompress.download.acz_decoder import LOWEST_STATE, MOST_LANE_BITS, SCALE, SCALE_BITS, AczError

# a lane costs about two bytes, so that this many symbols in each are 0.03 % where symbols take 7 bits
SYMBOLS_TO_A_LANE = 8192
Symbols = NDArray[np.uint8]


@dataclass(frozen=True)
class SymbolTables:
    """Frequencies of the symbols of each table, which sum to 2**14, of shape `(tables, 256)`."""

    sizes: NDArray[np.uint32]

    @staticmethod
    def of(tables: Sequence[Sequence[int]]) -> SymbolTables:
        """From the frequencies of each table, whose alphabets may be smaller than 256."""
        sizes = np.zeros((len(tables), 256), dtype=np.uint32)
        for place, table in enumerate(tables):
            sizes[place, : len(table)] = table
        return SymbolTables(sizes)

    @property
    def places(self) -> NDArray[np.uint32]:
        """The first slot of each symbol."""
        return (np.cumsum(self.sizes, axis=1) - self.sizes).astype(np.uint32)

    def symbols(self) -> Symbols:
        """The symbol of each slot, 2**14 of each table after another."""
        values = np.arange(256, dtype=np.uint8)
        found = [np.repeat(values, sizes) for sizes in self.sizes]
        return np.concatenate([np.zeros(0, dtype=np.uint8), *found])


def lane_bits_for(symbols: int) -> int:
    """How many lanes so many symbols get, as a power of two."""
    return int(np.clip(int(symbols // SYMBOLS_TO_A_LANE).bit_length(), 0, 10))


def classes_of(classes: bytes, run: int, count: int) -> Symbols:
    """The class of each of `count` symbols: `classes[i // run % len(classes)]`."""
    each = np.frombuffer(classes, dtype=np.uint8)
    if not count:
        return np.zeros(0, dtype=np.uint8)
    one_round = np.repeat(each[: -(-count // run)], run)
    return np.tile(one_round, -(-count // len(one_round)))[:count]


def encoded(symbols: Symbols, classes: Symbols, tables: SymbolTables, lane_bits: int) -> bytes:
    """The code of the symbols, each with its table: states of all lanes, then words of 16 bits."""
    lanes = 1 << lane_bits
    sizes, places = tables.sizes.reshape(-1), tables.places.reshape(-1)
    states = np.full(lanes, LOWEST_STATE, dtype=np.uint64)
    pieces: list[NDArray[np.uint16]] = []
    scale_bits, sixteen = np.uint64(SCALE_BITS), np.uint64(16)
    for begin in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        at = classes[begin : begin + lanes].astype(np.int64) * 256 + symbols[begin : begin + lanes]
        size, place, state = sizes[at].astype(np.uint64), places[at].astype(np.uint64), states[: len(at)]
        full = state >= size << np.uint64(32 - SCALE_BITS)
        if full.any():
            pieces.append((state[full] & np.uint64(0xFFFF)).astype(np.uint16))
            state = np.where(full, state >> sixteen, state)
        states[: len(at)] = ((state // size) << scale_bits) + state % size + place
    words = np.concatenate(pieces[::-1]) if pieces else np.zeros(0, dtype=np.uint16)
    return states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


class SymbolReader:
    """Reads symbols from a code, many at once.

    Raises:
        AczError: by each method, when the code is cut off or damaged.
    """

    def __init__(self, code: bytes, tables: SymbolTables, lane_bits: int) -> None:
        lanes = 1 << lane_bits
        if lane_bits > MOST_LANE_BITS or len(code) < 4 * lanes:
            raise AczError("the code of its symbols is cut off")
        self._states = np.frombuffer(code, dtype="<u4", count=lanes).astype(np.uint32)
        if (self._states < LOWEST_STATE).any():
            raise AczError("the code of its symbols is damaged")
        self._words = np.frombuffer(code, dtype="<u2", offset=4 * lanes)
        self._at = self._lane = 0
        self._sizes, self._places = tables.sizes.reshape(-1), tables.places.reshape(-1)
        self._symbols = tables.symbols()

    def taken(self, classes: Symbols) -> Symbols:
        """The next symbols, one for each of `classes`, which are their tables."""
        found = np.empty(len(classes), dtype=np.uint8)
        begin = 0
        while begin < len(classes):
            end = min(len(classes), begin + len(self._states) - self._lane)
            found[begin:end] = self._step(classes[begin:end])
            begin = end
        return found

    def _step(self, classes: Symbols) -> Symbols:
        """A symbol of each of the next lanes, as many as `classes`; there are so many to the last lane."""
        first, last = self._lane, self._lane + len(classes)
        table = classes.astype(np.int64)
        state = self._states[first:last]
        slot = state & np.uint32(SCALE - 1)
        symbol = self._symbols[(table << SCALE_BITS) + slot]
        which = (table << 8) + symbol
        state = self._sizes[which] * (state >> np.uint32(SCALE_BITS)) + slot - self._places[which]
        low = np.flatnonzero(state < LOWEST_STATE)
        if len(low):
            words = self._words[self._at : self._at + len(low)]
            if len(words) < len(low):
                raise AczError("the code of its symbols is cut off")
            state[low] = (state[low] << np.uint32(16)) | words
            self._at += len(low)
        self._states[first:last] = state
        self._lane = last % len(self._states)
        return symbol

    def end(self) -> None:
        """Check that the code ends where the symbols end."""
        if self._at != len(self._words) or (self._states != LOWEST_STATE).any():
            raise AczError("the code of its symbols is damaged")
