"""Packed numbers: every base, any numbers, and no more bits than the entropy asks for by much."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.runtimes.radix import Digits, digits_for, packed, unpacked


@given(st.integers(1, 256), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_numbers_come_back_as_they_were(base: int, count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, base, count)
    digits = digits_for(base)
    words = packed(numbers, digits)
    assert words.nbytes == digits.bytes_of(count)
    np.testing.assert_array_equal(unpacked(words, digits, count), numbers)


@pytest.mark.parametrize("base", range(2, 65))
def test_a_word_holds_its_digits_in_little_more_than_their_entropy(base: int) -> None:
    digits = digits_for(base)
    assert base**digits.digits <= 2 ** min(31, 8 * digits.word_bytes)
    assert digits.bits < 1.17 * math.log2(base) + 0.05


def test_the_usual_bases_take_the_usual_bits() -> None:
    assert [digits_for(base).bits for base in (2, 4, 8, 16, 64, 256)] == [1, 2, 3, 4, 6, 8]
    assert digits_for(3).bits == 1.6
    assert digits_for(8) == Digits(8, 3, 8)


@pytest.mark.parametrize("base", [-1, 0, 257])
def test_other_bases_are_refused(base: int) -> None:
    with pytest.raises(ValueError, match=f"{base}"):
        digits_for(base)
