"""Where the fields of a protobuf message lie in its bytes (protocol buffers, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5


class Field(NamedTuple):
    """A field by its number: bytes `begin` to `end` of the file, or the `value` of a varint."""

    number: int
    begin: int
    end: int
    value: int = 0


def fields(content: bytes, begin: int, end: int) -> Iterator[Field]:
    """The fields of a message at these bytes.

    Raises:
        ValueError: where the bytes are no message.
    """
    at = begin
    while at < end:
        key, at = _varint(content, at, end)
        kind, number = key & 7, key >> 3
        if kind == VARINT:
            start = at
            value, at = _varint(content, at, end)
            yield Field(number, start, at, value)
            continue
        if kind == LENGTH:
            length, at = _varint(content, at, end)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if length > end - at:
            raise ValueError("a field is cut off")
        yield Field(number, at, at + length)
        at += length


def varints(content: bytes, begin: int, end: int) -> Iterator[int]:
    """The numbers of a packed field."""
    at = begin
    while at < end:
        value, at = _varint(content, at, end)
        yield value


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")
