"""Whole numbers below a base, packed as the digits of whole numbers of one to four bytes.

Bytes hold numbers below 16 two at a time and below 6 three at a time, three bytes hold eight numbers below 8. So a base
that is no power of two takes little more than its entropy, which whole bits for each number would not allow. Words of
eight bytes would hold a little more; OpenVINO computes with 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# bytes of a word and the number below which its values stay; those of four bytes are signed
WORDS = {1: 2**8, 2: 2**16, 3: 2**24, 4: 2**31}
# how words are stored: those of three bytes as their bytes, the lowest first
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint8), 2: np.dtype("<u2"), 4: np.dtype("<i4")}
BYTES = 3
# a longer word has to save this share of the bits: it takes longer to unpack
WORTH = 0.005
Numbers = NDArray[np.integer]
Packed = NDArray[np.integer]


@dataclass(frozen=True)
class Digits:
    """Numbers below `base`, so many `digits` to a word of `word_bytes`, the first number and byte lowest."""

    base: int
    word_bytes: int
    digits: int

    @property
    def bits(self) -> float:
        """Bits of each number."""
        return 8 * self.word_bytes / self.digits

    def bytes_of(self, count: int) -> int:
        """Bytes of so many numbers; the last word is filled up."""
        return -(-count // self.digits) * self.word_bytes


@cache
def digits_for(base: int) -> Digits:
    """The words that hold numbers below `base`, from 1 to 256, in the fewest bits.

    Raises:
        ValueError: for another base.
    """
    if not 1 <= base <= 256:
        raise ValueError(f"numbers below {base} are not packed")
    if base == 1:
        return Digits(1, 1, 64)
    found: Digits | None = None
    for width, most in WORDS.items():
        digits = 1
        while base ** (digits + 1) <= most:
            digits += 1
        one = Digits(base, width, digits)
        if found is None or one.bits < found.bits * (1 - WORTH):
            found = one
    assert found is not None
    return found


def packed(numbers: Numbers, digits: Digits) -> Packed:
    """The numbers, of any shape, as words of shape `(words, 1)`, or `(words, 3)` for those of three bytes."""
    flat = numbers.reshape(-1).astype(np.int64)
    filled = np.zeros(-(-len(flat) // digits.digits) * digits.digits, dtype=np.int64)
    filled[: len(flat)] = flat
    powers = np.int64(digits.base) ** np.arange(digits.digits, dtype=np.int64)
    words = (filled.reshape(-1, digits.digits) * powers).sum(1, keepdims=True)
    if digits.word_bytes == BYTES:
        return np.asarray((words >> (8 * np.arange(BYTES))) & 255, dtype=np.uint8)
    return np.asarray(words, dtype=TYPES[digits.word_bytes])


def unpacked(words: Packed, digits: Digits, count: int) -> NDArray[np.int64]:
    """The first `count` numbers of what `packed` gives."""
    powers = np.int64(digits.base) ** np.arange(digits.digits, dtype=np.int64)
    whole = words.astype(np.int64)
    if digits.word_bytes == BYTES:
        whole = (whole << (8 * np.arange(BYTES))).sum(1, keepdims=True)
    found: NDArray[np.int64] = (whole // powers % digits.base).reshape(-1)
    return found[:count]
