"""Makes the content of an .acz download from that of an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from autocompress.download.acz_decoder import (
    DIGITS,
    HEADER,
    MAGIC,
    MOST_TIMES,
    MOST_TIMES_BYTES,
    OTHER,
    SYMBOLS,
    frequencies,
)
from autocompress.download.byte_coder import coded_bytes
from autocompress.download.segments import BYTE, Packed, Part, choose_tables, parts_of
from autocompress.download.symbol_coder import SymbolTables, classes_of, encoded, lane_bits_for


def packed_content(content: bytes, packed: Mapping[str, Packed] | None = None) -> bytes:
    """The download from which the decoders make `content` again, which may be any bytes.

    `packed` says by name which tensors hold whole numbers as digits of words.
    """
    parts = parts_of(content, packed or {})
    levels = choose_tables(parts)
    tables = SymbolTables.of([frequencies(one) for one in levels])
    described, others = _description(content, parts, levels)
    code = coded_bytes(described + others)
    code += bytes(max(0, -(-(len(described) + len(others)) // MOST_TIMES_BYTES) - len(code)))
    symbols = np.concatenate([np.zeros(0, dtype=np.uint8), *(part.symbols for part in parts)])
    classes = [classes_of(part.classes, part.layout.run, len(part.symbols)) for part in parts]
    lane_bits = lane_bits_for(len(symbols))
    symbol_code = encoded(symbols, np.concatenate([np.zeros(0, dtype=np.uint8), *classes]), tables, lane_bits)
    # decoders refuse what would grow more than a thousandfold
    code += bytes(max(0, -(-len(content) // MOST_TIMES) - HEADER.size - len(code) - len(symbol_code)))
    digest = hashlib.sha256(content).digest()
    header = HEADER.pack(MAGIC, len(content), digest, len(described), len(others), len(code), lane_bits)
    return header + code + symbol_code


def _description(content: bytes, parts: list[Part], levels: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Tables and segments, and the bytes that are in no part."""
    described = bytearray(_number(len(levels)))
    for one in levels:
        described += _number(len(one)) + one
    others = bytearray()
    at = 0
    for part in parts:
        if part.begin > at:
            described += _number(OTHER) + _number(part.begin - at)
            others += content[at : part.begin]
        described += _segment(part)
        at = part.end
    if at < len(content):
        described += _number(OTHER) + _number(len(content) - at)
        others += content[at:]
    return bytes(described), bytes(others)


def _segment(part: Part) -> bytes:
    digits = part.digits
    if digits == BYTE:
        begun = _number(SYMBOLS)
    else:
        begun = b"".join(map(_number, (DIGITS, digits.base, digits.word_bytes, digits.digits)))
    numbers = ((part.end - part.begin) // digits.word_bytes, part.layout.run, len(part.classes))
    return begun + b"".join(map(_number, numbers)) + part.classes


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
