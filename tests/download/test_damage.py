"""Damaged downloads end in one error, or in the right file, and never take much memory."""

from __future__ import annotations

import resource
import struct
import tracemalloc

import numpy as np
import pytest

from autocompress.download.acz_decoder import (
    DIGITS,
    HEADER,
    KERNELS,
    OTHER,
    SYMBOLS,
    AczError,
    modelled_bytes,
    read_description,
    read_header,
    unpack,
)
from autocompress.download.decoder import unpacked_content
from autocompress.download.encoder import packed_content

from .small_files import PACKED, damaged, described_otherwise, small_file, tiny_file

FAST, SLOW = 120, 10_000
# every tenth download has other tables and segments, coded as they should be
OTHERWISE = 10


def outcome(decode: object, content: bytes) -> bytes | None:
    assert callable(decode)
    try:
        found = decode(content, 1 << 24)
    except AczError:
        return None
    assert isinstance(found, bytes)
    return found


def all_are_told(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    content = tiny_file()
    download = packed_content(content, PACKED)
    errors = 0
    for number in range(count):
        broken = described_otherwise(download, random) if number % OTHERWISE == 0 else damaged(download, random)
        found = outcome(unpacked_content, broken)
        assert found in (None, content)
        errors += found is None
        if number % 4 == 0:
            assert outcome(unpack, broken) == found
    assert errors > 0.9 * count


def test_the_file_of_these_tests_has_every_kind_of_segment() -> None:
    header = read_header(download := packed_content(tiny_file(), PACKED))
    end = HEADER.size + header.coded
    described = modelled_bytes(download[HEADER.size : end], header.described + header.others)[: header.described]
    _, segments = read_description(described, header)
    assert {segment.kind for segment in segments} == {OTHER, SYMBOLS, DIGITS, KERNELS}


def test_damaged_downloads_end_in_an_error() -> None:
    all_are_told(FAST, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_damaged_downloads_end_in_an_error() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    all_are_told(SLOW, seed=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [(4, "<Q", 1 << 62), (4, "<Q", 1 << 30), (44, "<I", 0xFFFFFFFF), (48, "<I", 0xFFFFFFFF), (52, "<I", 0xFFFFFFFF)],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_allocated(place: int, form: str, value: int) -> None:
    content = bytearray(packed_content(small_file()))
    struct.pack_into(form, content, place, value)
    tracemalloc.start()
    with pytest.raises(AczError):
        unpacked_content(bytes(content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_a_file_above_the_limit_is_refused() -> None:
    content = small_file()
    download = packed_content(content)
    assert unpacked_content(download, len(content)) == content
    with pytest.raises(AczError, match=f"holds {len(content)} bytes, and the limit is {len(content) - 1}"):
        unpacked_content(download, len(content) - 1)


def test_another_version_is_told() -> None:
    download = packed_content(small_file())
    with pytest.raises(AczError, match="version 2, and this decoder reads version 1"):
        unpack(download[:3] + b"\x02" + download[4:])


def test_another_hash_is_an_error() -> None:
    download = bytearray(packed_content(small_file()))
    download[HEADER.size - 30] ^= 1
    for decode in (unpack, unpacked_content):
        with pytest.raises(AczError, match="does not have the hash"):
            decode(bytes(download))
