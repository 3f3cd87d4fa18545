"""Symbols with static frequencies as interleaved rANS (Duda, 2013; Giesen, 2014), many lanes at once with numpy.

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
        """The symbol of each slot, of shape `(tables, 2**14)`."""
        values = np.arange(256, dtype=np.uint8)
        return np.stack([np.repeat(values, sizes) for sizes in self.sizes])


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
    """The code of the symbols, each with the table of its class: the states of all lanes, then words of 16 bits."""
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


def decoded(code: bytes, classes: Symbols, tables: SymbolTables, lane_bits: int) -> Symbols:
    """The symbols of a code, one for each of `classes`.

    Raises:
        AczError: when the code is cut off or does not end where the symbols end.
    """
    lanes = 1 << lane_bits
    if lane_bits > MOST_LANE_BITS or len(code) < 4 * lanes:
        raise AczError("the code of its symbols is cut off")
    states = np.frombuffer(code, dtype="<u4", count=lanes).astype(np.uint32)
    words = np.frombuffer(code, dtype="<u2", offset=4 * lanes)
    if (states < LOWEST_STATE).any():
        raise AczError("the code of its symbols is damaged")
    found = np.empty(len(classes), dtype=np.uint8)
    at = 0
    if len(classes):
        at = _decode(found, classes, states, words, tables)
    if at != len(words) or (states != LOWEST_STATE).any():
        raise AczError("the code of its symbols is damaged")
    return found


def _decode(
    found: Symbols,
    classes: Symbols,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    tables: SymbolTables,
) -> int:
    """Fill `found`, change `states` to the last ones; how many words were taken."""
    lanes = len(states)
    sizes, places, symbols = tables.sizes.reshape(-1), tables.places.reshape(-1), tables.symbols().reshape(-1)
    mask, bits, sixteen = np.uint32(SCALE - 1), np.uint32(SCALE_BITS), np.uint32(16)
    at = 0
    for begin in range(0, len(found), lanes):
        table = classes[begin : begin + lanes].astype(np.int64)
        state = states[: len(table)]
        slot = state & mask
        symbol = symbols[(table << SCALE_BITS) + slot]
        which = (table << 8) + symbol
        state = sizes[which] * (state >> bits) + slot - places[which]
        low = np.flatnonzero(state < LOWEST_STATE)
        if len(low):
            taken = words[at : at + len(low)]
            if len(taken) < len(low):
                raise AczError("the code of its symbols is cut off")
            state[low] = (state[low] << sixteen) | taken
            at += len(low)
        states[: len(table)] = state
        found[begin : begin + lanes] = symbol
    return at
