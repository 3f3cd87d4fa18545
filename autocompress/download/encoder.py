"""Makes the content of an .acz download from that of an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from autocompress.download.acz_decoder import (
    DIGITS,
    HEADER,
    KERNELS,
    MAGIC,
    MOST_TIMES,
    MOST_TIMES_BYTES,
    OTHER,
    SYMBOLS,
    frequencies,
)
from autocompress.download.byte_coder import coded_bytes
from autocompress.download.segments import BYTE, Packed, Part, parts_of
from autocompress.download.symbol_coder import SymbolTables, encoded, lane_bits_for
from autocompress.download.table_choice import Choice, choose_tables, coded_symbols


def packed_content(content: bytes, packed: Mapping[str, Packed] | None = None) -> bytes:
    """The download from which the decoders make `content` again, which may be any bytes.

    `packed` says by name which tensors hold whole numbers as digits of words.
    """
    parts = parts_of(content, packed or {})
    choice = choose_tables(parts)
    tables = SymbolTables.of([frequencies(one) for one in choice.levels])
    described, others = _description(content, parts, choice)
    code = coded_bytes(described + others)
    code += bytes(max(0, -(-(len(described) + len(others)) // MOST_TIMES_BYTES) - len(code)))
    nothing = np.zeros(0, dtype=np.uint8)
    symbols, classes = map(np.concatenate, zip((nothing, nothing), *map(coded_symbols, parts), strict=True))
    lane_bits = lane_bits_for(len(symbols))
    symbol_code = encoded(symbols, classes, tables, lane_bits)
    # decoders refuse what would grow more than a thousandfold
    code += bytes(max(0, -(-len(content) // MOST_TIMES) - HEADER.size - len(code) - len(symbol_code)))
    digest = hashlib.sha256(content).digest()
    header = HEADER.pack(MAGIC, len(content), digest, len(described), len(others), len(code), lane_bits)
    return header + code + symbol_code


def _description(content: bytes, parts: list[Part], choice: Choice) -> tuple[bytes, bytes]:
    """Tables, models and segments, and the bytes that are in no part."""
    described = bytearray(_number(len(choice.levels)))
    for one in choice.levels:
        described += _number(len(one)) + one
    described += _number(len(choice.models))
    for model in choice.models:
        described += b"".join(map(_number, (model.places, model.width, model.number_of_bins, len(model.bins))))
        described += model.bins + _number(model.classes) + model.tables
    others = bytearray()
    at = 0
    for part in parts:
        if part.begin > at:
            described += _number(OTHER) + _number(part.begin - at)
            others += content[at : part.begin]
        described += _segment(part, choice)
        at = part.end
    if at < len(content):
        described += _number(OTHER) + _number(len(content) - at)
        others += content[at:]
    return bytes(described), bytes(others)


def _segment(part: Part, choice: Choice) -> bytes:
    digits = part.digits
    length = (part.end - part.begin) // digits.word_bytes
    words = (digits.base, digits.word_bytes, digits.digits)
    numbers: tuple[int, ...]
    if part.model is not None:
        model = next(place for place, one in enumerate(choice.models) if one is part.model)
        numbers = (KERNELS, *words, length, model)
    elif digits == BYTE:
        numbers = (SYMBOLS, length)
    else:
        numbers = (DIGITS, *words, length)
    return b"".join(map(_number, (*numbers, part.layout.run, len(part.classes)))) + part.classes


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
