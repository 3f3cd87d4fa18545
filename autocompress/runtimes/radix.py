"""Whole numbers below a base, packed as the digits of words of one to seven bytes.

Bytes hold numbers below 16 two at a time and below 6 three at a time; three bytes hold eight numbers below 8. So a base
that is no power of two takes little more than its entropy, which whole bits for each number would not allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 7
# a longer word has to save this share of the bits: it takes longer to unpack
WORTH = 0.005
Numbers = NDArray[np.integer]
Packed = NDArray[np.uint8]


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
    for width in range(1, MOST_BYTES + 1):
        digits = 1
        while base ** (digits + 1) <= 256**width:
            digits += 1
        one = Digits(base, width, digits)
        if found is None or one.bits < found.bits * (1 - WORTH):
            found = one
    assert found is not None
    return found


def packed(numbers: Numbers, digits: Digits) -> Packed:
    """The numbers, of any shape, as bytes of shape `(words, word_bytes)`."""
    flat = numbers.reshape(-1).astype(np.int64)
    filled = np.zeros(-(-len(flat) // digits.digits) * digits.digits, dtype=np.int64)
    filled[: len(flat)] = flat
    powers = np.int64(digits.base) ** np.arange(digits.digits, dtype=np.int64)
    words = (filled.reshape(-1, digits.digits) * powers).sum(1)
    shifts = 8 * np.arange(digits.word_bytes, dtype=np.int64)
    return np.asarray((words[:, None] >> shifts) & 255, dtype=np.uint8)


def unpacked(words: Packed, digits: Digits, count: int) -> NDArray[np.int64]:
    """The first `count` numbers of what `packed` gives."""
    shifts = 8 * np.arange(digits.word_bytes, dtype=np.int64)
    whole = (words.astype(np.int64) << shifts).sum(1)
    powers = np.int64(digits.base) ** np.arange(digits.digits, dtype=np.int64)
    found: NDArray[np.int64] = (whole[:, None] // powers % digits.base).reshape(-1)
    return found[:count]
