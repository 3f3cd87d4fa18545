"""Rebuilds the content of a file from an .acz download, many symbols at once with numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autocompress.download.acz_decoder import (
    DEFAULT_LIMIT,
    HEADER,
    OTHER,
    Segment,
    checked,
    modelled_bytes,
    read_description,
    read_header,
)
from autocompress.download.kernel_models import kernel_tables
from autocompress.download.symbol_coder import SymbolReader, Symbols, SymbolTables, classes_of


def unpacked_content(content: bytes, limit: int = DEFAULT_LIMIT) -> bytes:
    """The file that a download holds, of `limit` bytes at most; the same as `acz_decoder.unpack` gives.

    Raises:
        AczError: when the download is damaged, or says that the file is larger.
    """
    header = read_header(content, limit)
    begin = HEADER.size + header.coded
    modelled = modelled_bytes(content[HEADER.size : begin], header.described + header.others)
    tables, segments = read_description(modelled[: header.described], header)
    reader = SymbolReader(content[begin:], SymbolTables.of(tables), header.lane_bits)
    found = np.empty(header.size, dtype=np.uint8)
    at, others = 0, header.described
    for segment in segments:
        if segment.kind == OTHER:
            part = np.frombuffer(modelled, dtype=np.uint8, count=segment.length, offset=others)
            others += segment.length
        else:
            part = _words(_symbols(reader, segment), segment)
        found[at : at + segment.size] = part
        at += segment.size
    reader.end()
    return checked(found.tobytes(), header)


def _symbols(reader: SymbolReader, segment: Segment) -> Symbols:
    classes = classes_of(segment.classes, segment.run, segment.symbols)
    if segment.model is None:
        return reader.taken(classes)
    found = np.empty(segment.symbols, dtype=np.uint8)
    for place in range(min(segment.model.places, segment.symbols)):
        found[place :: segment.model.places] = reader.taken(kernel_tables(segment.model, classes, found, place))
    return found


def _words(digits: Symbols, segment: Segment) -> NDArray[np.uint8]:
    """The bytes of words that hold these digits."""
    if segment.base == 256 and segment.word_bytes == 1:
        return digits
    powers = np.int64(segment.base) ** np.arange(segment.digits, dtype=np.int64)
    words = digits.reshape(segment.length, segment.digits).astype(np.int64) @ powers
    return np.asarray(words.astype("<i8").view(np.uint8).reshape(-1, 8)[:, : segment.word_bytes].reshape(-1))
