"""Cuts an ONNX file into segments: weights, byte planes of numbers, packed digits, other bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autocompress.download.acz_decoder import KernelModel
from autocompress.download.frequency_tables import Counts
from autocompress.download.kernel_models import Kernel
from autocompress.download.onnx_tensors import StoredTensor, stored_tensors
from autocompress.runtimes.radix import Digits

# less is left to the byte model, in bytes
LEAST_WEIGHTS, LEAST_NUMBERS = 64, 32
# longer runs of other bytes take too long in the byte model, about 0.1 ms a byte in Python
MOST_OTHER = 1 << 20
# groups of symbols that choose a table; more of them share one in a row
MOST_GROUPS = 8192
# symbols; their groups take eight bytes each
COUNTED_AT_ONCE = 1 << 22
# what repeats itself is left to the byte model, which tables do not see; only looked for in short tensors, in bytes
REPEATING, MOST_REPEATING = 0.8, 1 << 16
# bytes of a value by ONNX's data types: float, int32, int64, float16, double, uint32, uint64, bfloat16, int16, uint16
WIDTHS = {1: 4, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2, 5: 2, 4: 2}
# uint8, int8, bool and the floats of 8 bits
INT8, BYTES = 3, (2, 3, 9, 17, 18, 19, 20)
# a kernel has at most so many places, as a model of them has
MOST_PLACES = 64
# uint4 and int4, two to a byte
NIBBLES = (21, 22)
BYTE, NIBBLE = Digits(256, 1, 1), Digits(16, 1, 2)


@dataclass(frozen=True)
class Packed:
    """How a tensor's bytes hold whole numbers: its digits, and the shapes of what is packed in it.

    Each shape that is known has the number of the word that it begins with; what fills the last word up may follow it.
    """

    digits: Digits
    shapes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def pieces(self, begin: int, end: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Bytes and shape of all that is packed in bytes `begin` to `end`; an unknown shape is empty."""
        width = self.digits.word_bytes
        firsts = [first for first in sorted({0, *self.shapes}) if begin + first * width < end]
        ends = [*(begin + first * width for first in firsts[1:]), end]
        for first, behind in zip(firsts, ends, strict=True):
            yield begin + first * width, behind, self.shapes.get(first, ())


@dataclass(frozen=True)
class Layout:
    """Which symbols share a table: symbol i is in group `i // run % groups`."""

    run: int
    groups: int

    def groups_of(self, begin: int, end: int) -> NDArray[np.intp]:
        """The groups of symbols `begin` to `end`."""
        return np.arange(begin, end) // self.run % self.groups


@dataclass(eq=False)
class Part:
    """Bytes `begin` to `end` of the file that are coded as symbols.

    Layout, classes and model are there once they are chosen. `kernel` is there for weights of convolutions, with the
    layout by channels.
    """

    begin: int
    end: int
    digits: Digits
    symbols: NDArray[np.uint8]
    layouts: tuple[Layout, ...]
    # symbols of a kind share tables
    kind: str
    kernel: tuple[Kernel, Layout] | None = None
    layout: Layout = Layout(1, 1)
    classes: bytes = b""
    model: KernelModel | None = None
    _counts: dict[Layout, Counts] = field(default_factory=dict)

    def counts(self, layout: Layout) -> Counts:
        """How often each symbol occurs in each group."""
        if layout not in self._counts:
            found = np.zeros(layout.groups * 256, dtype=np.int64)
            for begin in range(0, len(self.symbols), COUNTED_AT_ONCE):
                symbols = self.symbols[begin : begin + COUNTED_AT_ONCE]
                at = layout.groups_of(begin, begin + len(symbols)) * 256 + symbols
                found += np.bincount(at, minlength=len(found))
            self._counts[layout] = found.reshape(layout.groups, 256).astype(np.float32)
        return self._counts[layout]


def parts_of(content: bytes, packed: Mapping[str, Packed]) -> list[Part]:
    """The parts of a file that are coded as symbols, in order; layouts are not chosen yet."""
    parts: list[Part] = []
    at = 0
    for tensor in stored_tensors(content):
        for part in _parts(content, tensor, packed.get(tensor.name)):
            parts += _long_runs(content, at, part.begin)
            parts.append(part)
            at = part.end
    parts += _long_runs(content, at, len(content))
    return parts


def _long_runs(content: bytes, begin: int, end: int) -> Iterator[Part]:
    """Other bytes that are too many for the byte model."""
    if end - begin > MOST_OTHER:
        yield _symbols(content, begin, end, (Layout(1, 1),), "other")


def _parts(content: bytes, tensor: StoredTensor, packed: Packed | None) -> list[Part]:
    if packed is not None and tensor.end - tensor.begin >= LEAST_NUMBERS:
        pieces = packed.pieces(tensor.begin, tensor.end)
        found = [_digits(content, begin, end, packed.digits, shape) for begin, end, shape in pieces]
        whole = [part for part in found if part is not None]
        if len(whole) == len(found):
            return whole
    part = _part(content, tensor)
    return [] if part is None else [part]


def _part(content: bytes, tensor: StoredTensor) -> Part | None:
    begin, end = tensor.begin, tensor.end
    size = end - begin
    width = WIDTHS.get(tensor.kind)
    if width is not None and size >= LEAST_NUMBERS and size % width == 0:
        part = _symbols(content, begin, end, (Layout(1, width),), f"planes of {width}")
    elif tensor.kind in NIBBLES and size >= LEAST_WEIGHTS:
        return _digits(content, begin, end, NIBBLE, tensor.shape)
    elif size >= LEAST_WEIGHTS and width is None:
        layouts = layouts_of(tensor.shape, size) if tensor.kind in BYTES else (Layout(1, 1),)
        part = _symbols(content, begin, end, layouts, "int8" if tensor.kind == INT8 else "bytes")
        part.kernel = kernel_of(tensor.shape, size) if tensor.kind in BYTES else None
    else:
        return None
    return None if _repeats(content[begin:end], part) else part


def _symbols(content: bytes, begin: int, end: int, layouts: tuple[Layout, ...], kind: str) -> Part:
    symbols = np.frombuffer(content, dtype=np.uint8, count=end - begin, offset=begin)
    return Part(begin, end, BYTE, symbols, layouts, kind)


def _digits(content: bytes, begin: int, end: int, digits: Digits, shape: tuple[int, ...]) -> Part | None:
    """The digits of words; None where the bytes are not such words."""
    if not 2 <= digits.base <= 256 or not 1 <= digits.word_bytes <= 7 or (end - begin) % digits.word_bytes:
        return None
    if digits.base**digits.digits > 256**digits.word_bytes:
        return None
    bytes_ = np.frombuffer(content, dtype=np.uint8, count=end - begin, offset=begin).reshape(-1, digits.word_bytes)
    words = (bytes_.astype(np.int64) << (8 * np.arange(digits.word_bytes, dtype=np.int64))).sum(axis=1)
    if int(words.max(initial=0)) >= digits.base**digits.digits:
        return None
    symbols = np.empty((len(words), digits.digits), dtype=np.uint8)
    for place in range(digits.digits):
        words, symbols[:, place] = np.divmod(words, digits.base)
    return Part(
        begin,
        end,
        digits,
        symbols.reshape(-1),
        layouts_of(shape, symbols.size),
        f"digits of {digits.base}",
        kernel_of(shape, symbols.size),
    )


def layouts_of(shape: tuple[int, ...], count: int) -> tuple[Layout, ...]:
    """Ways to group a weight of this shape: all, output channels, input channels, the last axis."""
    found = [Layout(1, 1)]
    number = int(np.prod(shape, dtype=np.int64)) if shape else 0
    # packed numbers are followed by what fills up the last word
    if len(shape) > 1 and number and 0 <= count - number < 64:
        row = number // shape[0]
        inner = row // shape[1]
        found += [_rows(row, shape[0]), Layout(inner, shape[1]), Layout(1, shape[-1])]
    return tuple(dict.fromkeys(one for one in found if one.groups <= MOST_GROUPS))


def kernel_of(shape: tuple[int, ...], count: int) -> tuple[Kernel, Layout] | None:
    """The kernels of a convolution's weight, and its channels.

    They are input channels, or output channels where it has one of those.
    """
    number = int(np.prod(shape, dtype=np.int64)) if shape else 0
    if len(shape) < 3 or not number or not 0 <= count - number < 64:
        return None
    places = number // (shape[0] * shape[1])
    if not 1 < places <= MOST_PLACES:
        return None
    layout = Layout(places, shape[1]) if shape[1] > 1 else _rows(places, shape[0])
    return (Kernel(places, shape[-1]), layout) if layout.groups <= MOST_GROUPS else None


def _rows(row: int, rows: int) -> Layout:
    together = -(-rows // MOST_GROUPS)
    return Layout(row * together, -(-rows // together))


def _repeats(content: bytes, part: Part) -> bool:
    """True where what repeats itself is much shorter as such than by the frequencies of its bytes.

    Kernels whose places are alike have a model of their own.
    """
    if len(content) > MOST_REPEATING or part.kernel is not None:
        return False
    counts = part.counts(part.layouts[0])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    bits = -float((counts * np.log2(np.where(shares > 0, shares, 1))).sum())
    return len(zlib.compress(content, 9)) < REPEATING * bits / 8
