"""Rebuilds the file that an .acz download holds, with Python's standard library alone.

Copy this file into your application, or run it: python acz_decoder.py model.onnx.acz model.onnx

The format is specified in docs/download.md of autocompress. What is damaged ends in `AczError`, never in a wrong file.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

MAGIC = b"ACZ\x01"
HEADER = struct.Struct("<4sQ32sIIIB")
# the rebuilt file is at most so many times as large as the download, and so is what the byte model gives
MOST_TIMES, MOST_TIMES_BYTES = 1000, 64
MOST_MODELLED = 1 << 26
DEFAULT_LIMIT = (1 << 31) - 1
MOST_TABLES = 255
MOST_LANE_BITS = 12

SCALE_BITS = 14
SCALE = 1 << SCALE_BITS
LOWEST_STATE = 1 << 16
# eighths of an octave
MANTISSAS = (128, 140, 152, 166, 181, 197, 215, 235)

OTHER, SYMBOLS, DIGITS, KERNELS = 0, 1, 2, 3
MOST_MODELS, MOST_PLACES, MOST_BINS, MOST_CLASSES = 64, 256, 16, 16

MASK = 0xFFFFFFFF
SLOT_BITS = 18
COUNT_LIMIT = 30
MULTIPLIERS = (0x2F0B4C47, 0x9E3779B1, 0x85EBCA6B)
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
INPUT, OUTPUT, NAME, OPERATOR = 0x0A, 0x12, 0x42, 0x22
OUTPUT_PLACE, NAME_PLACE = 7, 8
# fmt: off
CURVE = (1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901,
         3975, 4024, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094)
# fmt: on


class AczError(ValueError):
    """A download that is damaged, or too large for the limit."""


class Header(NamedTuple):
    """What the first bytes say; `coded` are the bytes of the byte model's code."""

    size: int
    sha256: bytes
    described: int
    others: int
    coded: int
    lane_bits: int


class KernelModel(NamedTuple):
    """Tables of the places of a kernel: by class, place, and the bins of the symbols before and above it.

    A kernel has `places` symbols, `width` in a row; `bins` holds the bin of each symbol, and `tables` has shape
    `(classes, places, number of bins + 1, number of bins + 1)`, the last bin for a symbol that is not there.
    """

    places: int
    width: int
    number_of_bins: int
    bins: bytes
    classes: int
    tables: bytes

    def first_cell(self, of_class: int, place: int) -> int:
        """Where the tables of a class and place begin."""
        return (of_class * self.places + place) * (self.number_of_bins + 1) ** 2


class Segment(NamedTuple):
    """Bytes of the file: `length` bytes or words.

    Symbol i is of the class `classes[i // run % len(classes)]`. A class is a table, or one of the classes of a model of
    kernels.
    """

    kind: int
    length: int
    run: int = 1
    classes: bytes = b""
    base: int = 256
    word_bytes: int = 1
    digits: int = 1
    model: KernelModel | None = None

    @property
    def symbols(self) -> int:
        """Number of symbols."""
        return 0 if self.kind == OTHER else self.length * self.digits

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.length * self.word_bytes


def _squash(x: int) -> int:
    if x > 2047:
        return 4095
    if x < -2047:
        return 1
    place, part = (x >> 7) + 16, x & 127
    return (CURVE[place] * (128 - part) + CURVE[place + 1] * part + 64) >> 7


def _stretched() -> list[int]:
    found = [2047] * 4096
    filled = 0
    for x in range(-2047, 2048):
        value = _squash(x)
        for place in range(filled, value + 1):
            found[place] = x
        filled = max(filled, value + 1)
    return found


SQUASHED = [_squash(x) for x in range(-2048, 2048)]
STRETCH = _stretched()
RATES = [131072 // (2 * count + 3) for count in range(COUNT_LIMIT + 1)]


def successor(name: bytes) -> bytes:
    """The name after this one in a..z, A..Z, aa, ab, ...; names with other characters stay."""
    letters = list(name)
    for place in range(len(letters) - 1, -1, -1):
        at = LETTERS.find(letters[place])
        if at < 0:
            return name
        if at + 1 < len(LETTERS):
            letters[place] = LETTERS[at + 1]
            return bytes(letters)
        letters[place] = LETTERS[0]
    return b"a" + bytes(letters)


class _Names:
    """Short names of an ONNX graph, and what the next one may be: two guesses for each of its bytes."""

    def __init__(self) -> None:
        self.last = [b""] * 9
        self.place = self.inputs = self.left = 0
        self.seen = b""
        self.previous = 0
        self.guesses = [b"", b""]
        self.missed = [0, 0]

    def guessed(self) -> tuple[int, int]:
        """The guessed next bytes, -1 where there is none."""
        if not self.left:
            return -1, -1
        at = len(self.seen)
        first, second = self.guesses
        return (first[at] if at < len(first) else -1), (second[at] if at < len(second) else -1)

    def add(self, byte: int) -> bool:
        """Take the next byte; True where it belongs to a name."""
        if self.left:
            at = len(self.seen)
            for which, guess in enumerate(self.guesses):
                if at < len(guess) and guess[at] != byte:
                    self.missed[which] = 1
            self.seen += bytes((byte,))
            self.left -= 1
            if not self.left:
                self.last[self.place] = self.seen
                if self.place == OUTPUT_PLACE:
                    self.inputs = 0
            self.previous = byte
            return True
        if self.previous in (INPUT, OUTPUT, NAME) and 1 <= byte <= 4:
            self._begin(self.previous, byte)
        self.previous = byte
        return False

    def _begin(self, tag: int, length: int) -> None:
        if tag == INPUT:
            self.place = min(self.inputs, 6)
            self.inputs += 1
            guesses = [self.last[OUTPUT_PLACE], successor(self.last[self.place])]
        else:
            self.place = OUTPUT_PLACE if tag == OUTPUT else NAME_PLACE
            guesses = [successor(self.last[self.place]), b""]
        self.guesses = [guess if len(guess) == length else b"" for guess in guesses]
        self.missed = [0, 0]
        self.left, self.seen = length, b""


class ByteModel:
    """Probabilities of the next bit: five contexts and two guesses, mixed as logits (Mahoney, PAQ6, 2005).

    Contexts are the last byte, the last two, the last four, the fourth and third last, and the last operator with the
    distance from it. All arithmetic is on integers; shifts of negative numbers round down.
    """

    def __init__(self) -> None:
        self.tables = [[32768 << 5] * (1 << SLOT_BITS) for _ in range(5)]
        self.guess_table = [32768 << 5] * 1152
        self.weights = [[19660] * 7 for _ in range(256)]
        self.names = _Names()
        self.history = [0] * 4
        self.hashes = [0] * 5
        self.bases = [0] * 5
        self.operator = self.hashing = self.to_come = self.distance = 0
        self.partial = 1
        self.hits: list[tuple[int, int]] = []
        self._begin_byte()

    def _begin_byte(self) -> None:
        first, second, third, fourth = self.history
        a, b, c = MULTIPLIERS
        two = (first + 1) * a + second
        self.hashes = [
            (first + 1) * a & MASK,
            (two * b + 2) & MASK,
            ((two * b + third) * c + fourth * a + 3) & MASK,
            (((fourth << 8) + third) * b + 4) & MASK,
            (self.operator * a + self.distance * b + 5) & MASK,
        ]
        self.guessed = self.names.guessed()
        self._begin_nibble()

    def _begin_nibble(self) -> None:
        shift = 32 - SLOT_BITS
        for which, value in enumerate(self.hashes):
            mixed = (value + self.partial * 0x3D4D51CB) & MASK
            mixed = (mixed ^ (mixed >> 16)) * 0x2545F491 & MASK
            self.bases[which] = mixed >> shift
        self.nibble = 1

    def probability(self) -> int:
        """The probability that the next bit is 1, from 1 to 4095 of 4096."""
        nibble, (b0, b1, b2, b3, b4), (t0, t1, t2, t3, t4) = self.nibble, self.bases, self.tables
        self.slots = slots = (b0 ^ nibble, b1 ^ nibble, b2 ^ nibble, b3 ^ nibble, b4 ^ nibble)
        inputs = [
            STRETCH[t0[slots[0]] >> 9],
            STRETCH[t1[slots[1]] >> 9],
            STRETCH[t2[slots[2]] >> 9],
            STRETCH[t3[slots[3]] >> 9],
            STRETCH[t4[slots[4]] >> 9],
            0,
            0,
        ]
        self.hits.clear()
        if self.names.left:
            self._add_guesses(inputs)
        self.mixing = w = self.weights[self.partial]
        self.inputs = inputs
        x0, x1, x2, x3, x4, x5, x6 = inputs
        dot = x0 * w[0] + x1 * w[1] + x2 * w[2] + x3 * w[3] + x4 * w[4] + x5 * w[5] + x6 * w[6]
        dot >>= 16
        self.mixed = SQUASHED[dot + 2048] if -2048 < dot < 2048 else 4095 if dot > 0 else 1
        return self.mixed

    def _add_guesses(self, inputs: list[int]) -> None:
        names, bit = self.names, 8 - self.partial.bit_length()
        for which, byte in enumerate(self.guessed):
            if byte >= 0 and (byte | 256) >> (bit + 1) == self.partial:
                guess = byte >> bit & 1
                at = ((which * 9 + names.place) * 4 + min(len(names.seen), 3)) * 2 + names.missed[which]
                logit = STRETCH[self.guess_table[at * 8 + bit] >> 9]
                inputs[5 + which] = logit if guess else -logit
                self.hits.append((at * 8 + bit, guess))

    def update(self, bit: int) -> None:
        """Learn the bit whose probability was asked for last."""
        error = ((bit << 12) - self.mixed) * 2
        x0, x1, x2, x3, x4, x5, x6 = self.inputs
        w0, w1, w2, w3, w4, w5, w6 = w = self.mixing
        w[0] = w0 + (x0 * error + 512 >> 10)
        w[1] = w1 + (x1 * error + 512 >> 10)
        w[2] = w2 + (x2 * error + 512 >> 10)
        w[3] = w3 + (x3 * error + 512 >> 10)
        w[4] = w4 + (x4 * error + 512 >> 10)
        if self.hits:
            w[5] = w5 + (x5 * error + 512 >> 10)
            w[6] = w6 + (x6 * error + 512 >> 10)
        goal = 65535 if bit else 0
        for table, slot in zip(self.tables, self.slots):  # noqa: B905 - runs on Python 3.8 as well
            value = table[slot]
            count = value & 31
            chance = value >> 5
            chance += (goal - chance) * RATES[count] >> 16
            table[slot] = chance << 5 | (count + 1 if count < COUNT_LIMIT else count)
        for slot, guess in self.hits:
            value = self.guess_table[slot]
            count, chance = value & 31, value >> 5
            chance += ((65535 if bit == guess else 0) - chance) * RATES[count] >> 16
            self.guess_table[slot] = chance << 5 | (count + 1 if count < COUNT_LIMIT else count)
        self.partial = self.partial * 2 + bit
        self.nibble = self.nibble * 2 + bit
        if self.partial >= 256:
            self._end_byte(self.partial - 256)
        elif 16 <= self.partial < 32:
            self._begin_nibble()

    def _end_byte(self, byte: int) -> None:
        before = self.history[0]
        self.distance = min(self.distance + 1, 255)
        named = self.names.add(byte)
        if self.to_come:
            self.hashing = (self.hashing + byte + 1) * MULTIPLIERS[0] & MASK
            self.to_come -= 1
            if not self.to_come:
                self.operator, self.distance = self.hashing, 0
        elif not named and before == OPERATOR and 2 <= byte < 32:
            self.to_come, self.hashing = byte, 0
        self.history = [byte, *self.history[:3]]
        self.partial = 1
        self._begin_byte()


def modelled_bytes(code: bytes, count: int) -> bytes:
    """The `count` bytes that the byte model's code stands for (binary arithmetic coding, 32 bits)."""
    model = ByteModel()
    low, high, at = 0, MASK, 4
    value = int.from_bytes(code[:4].ljust(4, b"\0"), "big")
    found = bytearray()
    for _ in range(count):
        byte = 1
        while byte < 256:
            middle = low + ((high - low) >> 12) * model.probability()
            bit = 1 if value <= middle else 0
            if bit:
                high = middle
            else:
                low = middle + 1
            model.update(bit)
            byte = byte * 2 + bit
            while not (low ^ high) >> 24:
                low, high = low << 8 & MASK, high << 8 & MASK | 255
                value = value << 8 & MASK | (code[at] if at < len(code) else 0)
                at += 1
        if at > len(code) + 4:
            raise AczError("the code of its description is cut off")
        found.append(byte - 256)
    return bytes(found)


class _Numbers:
    """Reads the description: bytes, and numbers of 7 bits a byte, the lowest first."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def taken(self, count: int) -> bytes:
        if count > len(self.content) - self.at:
            raise AczError("its description is cut off")
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, lowest: int, highest: int) -> int:
        value = shift = 0
        while True:
            byte = self.taken(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 56:
                raise AczError("its description holds a number of too many bytes")
        if not lowest <= value <= highest:
            raise AczError(f"its description holds {value} where {lowest} to {highest} are possible")
        return value


def frequencies(levels: Sequence[int]) -> list[int]:
    """Frequencies of the symbols of a table, which sum to 2**14.

    Level 0 does not occur, 8 levels are an octave.
    """
    weights = [MANTISSAS[(level - 1) % 8] << ((level - 1) // 8) if level else 0 for level in levels]
    total, occurring = sum(weights), sum(1 for weight in weights if weight)
    if not total:
        raise AczError("it has a table without symbols")
    found = [weight * (SCALE - occurring) // total + 1 if weight else 0 for weight in weights]
    found[weights.index(max(weights))] += SCALE - sum(found)
    return found


def read_header(content: bytes, limit: int = DEFAULT_LIMIT) -> Header:
    """The header, checked before anything is allocated; the rebuilt file may have `limit` bytes at most."""
    if len(content) < HEADER.size or content[:3] != MAGIC[:3]:
        raise AczError("it is no .acz file")
    magic, size, digest, described, others, coded, lane_bits = HEADER.unpack_from(content)
    if magic != MAGIC:
        raise AczError(f"it is of version {magic[3]}, and this decoder reads version {MAGIC[3]}")
    if size > limit:
        raise AczError(f"it says that it holds {size} bytes, and the limit is {limit}")
    room = len(content) - HEADER.size - (4 << min(lane_bits, MOST_LANE_BITS))
    modelled = described + others
    if (
        lane_bits > MOST_LANE_BITS
        or coded > room
        or (room - coded) % 2
        or size > len(content) * MOST_TIMES
        or others > size
        or modelled > min(MOST_MODELLED, coded * MOST_TIMES_BYTES)
    ):
        raise AczError("its header says what cannot be")
    return Header(size, digest, described, others, coded, lane_bits)


def read_description(content: bytes, header: Header) -> tuple[list[list[int]], list[Segment]]:
    """Frequencies of each table, and the segments, which fill the file exactly."""
    numbers = _Numbers(content)
    number_of_tables = numbers.number(0, MOST_TABLES)
    tables = [frequencies(numbers.taken(numbers.number(1, 256))) for _ in range(number_of_tables)]
    models = [_model(numbers, len(tables)) for _ in range(numbers.number(0, MOST_MODELS))]
    segments = []
    left, others = header.size, header.others
    while left:
        segment = _segment(numbers, left, [len(table) for table in tables], models)
        left -= segment.size
        others -= segment.size if segment.kind == OTHER else 0
        segments.append(segment)
    if others or numbers.at != len(content):
        raise AczError("its description does not fit its header")
    return tables, segments


def _model(numbers: _Numbers, tables: int) -> KernelModel:
    places = numbers.number(1, MOST_PLACES)
    width, number_of_bins = numbers.number(1, places), numbers.number(1, MOST_BINS)
    bins = numbers.taken(numbers.number(1, 256))
    classes = numbers.number(1, MOST_CLASSES)
    cells = numbers.taken(classes * places * (number_of_bins + 1) ** 2)
    if max(bins) >= number_of_bins or max(cells) >= tables:
        raise AczError("it has a model of kernels that does not fit")
    return KernelModel(places, width, number_of_bins, bins, classes, cells)


def _segment(numbers: _Numbers, left: int, alphabets: Sequence[int], models: Sequence[KernelModel]) -> Segment:
    kind = numbers.number(OTHER, KERNELS)
    base, word_bytes, digits = 256, 1, 1
    if kind in (DIGITS, KERNELS):
        base, word_bytes = numbers.number(2, 256), numbers.number(1, 7)
        digits = numbers.number(1, 56)
        if base**digits > 256**word_bytes:
            raise AczError("it has more digits in a word than the word holds")
    count = numbers.number(1, left // word_bytes)
    if kind == OTHER:
        return Segment(kind, count)
    if kind == KERNELS and not models:
        raise AczError("it uses a model of kernels that is not there")
    model = models[numbers.number(0, len(models) - 1)] if kind == KERNELS else None
    run = numbers.number(1, count * digits)
    classes = numbers.taken(numbers.number(1, count * digits))
    if model is not None and (len(model.bins) < base or max(classes) >= model.classes):
        raise AczError("it uses a model of kernels that does not fit")
    used = set(classes if model is None else model.tables)
    if any(one >= len(alphabets) or alphabets[one] > base for one in used):
        raise AczError("it uses a table that does not fit")
    return Segment(kind, count, run, classes, base, word_bytes, digits, model)


class _Symbols:
    """Symbols of all segments, one after another, as rANS (Duda, 2013).

    Symbol i is the next one of lane i modulo the lanes.
    """

    def __init__(self, code: bytes, lane_bits: int, tables: Sequence[Sequence[int]]) -> None:
        lanes = 1 << lane_bits
        self.states = list(struct.unpack_from(f"<{lanes}I", code))
        if any(state < LOWEST_STATE for state in self.states):
            raise AczError("the code of its symbols is damaged")
        count = (len(code) - 4 * lanes) // 2
        self.words = struct.unpack_from(f"<{count}H", code, 4 * lanes)
        self.at = self.lane = 0
        self.tables = [_Table(table) for table in tables]

    def taken(self, count: int, run: int, classes: bytes) -> bytes:
        """The next symbols; symbol i is of the class `classes[i // run % len(classes)]`."""
        found = bytearray(count)
        states, words, at, lane, last = self.states, self.words, self.at, self.lane, len(self.states) - 1
        begin = 0
        try:
            for unit in range(-(-count // run)):
                table = self.tables[classes[unit % len(classes)]]
                symbols, places, sizes = table.symbols, table.places, table.sizes
                for place in range(begin, min(begin + run, count)):
                    state = states[lane]
                    slot = state & (SCALE - 1)
                    found[place] = symbol = symbols[slot]
                    state = sizes[symbol] * (state >> SCALE_BITS) + slot - places[symbol]
                    if state < LOWEST_STATE:
                        state = state << 16 | words[at]
                        at += 1
                    states[lane] = state
                    lane = lane + 1 if lane < last else 0
                begin += run
        except IndexError:
            raise AczError("the code of its symbols is cut off") from None
        self.at, self.lane = at, lane
        return bytes(found)

    def kernels(self, segment: Segment) -> bytes:
        """The symbols of a segment of kernels.

        They come place by place: the first of all kernels, the second, ...
        """
        model = segment.model
        assert model is not None
        count, places, width, side = segment.symbols, model.places, model.width, model.number_of_bins + 1
        # what is not there is in a bin of its own
        bins, nothing = model.bins, model.number_of_bins
        found = bytearray(count)
        for place in range(min(places, count)):
            firsts = [model.first_cell(one, place) for one in range(model.classes)]
            for at in range(place, count, places):
                before = bins[found[at - 1]] if place else nothing
                above = bins[found[at - width]] if place >= width else nothing
                first = firsts[segment.classes[at // segment.run % len(segment.classes)]]
                found[at] = self.next(self.tables[model.tables[first + before * side + above]])
        return bytes(found)

    def next(self, table: _Table) -> int:
        """The next symbol, by this table."""
        state = self.states[self.lane]
        slot = state & (SCALE - 1)
        symbol: int = table.symbols[slot]
        state = table.sizes[symbol] * (state >> SCALE_BITS) + slot - table.places[symbol]
        if state < LOWEST_STATE:
            if self.at >= len(self.words):
                raise AczError("the code of its symbols is cut off")
            state = state << 16 | self.words[self.at]
            self.at += 1
        self.states[self.lane] = state
        self.lane = self.lane + 1 if self.lane + 1 < len(self.states) else 0
        return symbol

    def end(self) -> None:
        """Check that the code ends where the symbols end."""
        if self.at != len(self.words) or any(state != LOWEST_STATE for state in self.states):
            raise AczError("the code of its symbols is damaged")


class _Table:
    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.places = [sum(sizes[:symbol]) for symbol in range(len(sizes))]
        self.symbols: bytes = b"".join(bytes((symbol,)) * size for symbol, size in enumerate(sizes))


def words_of(digits: bytes, segment: Segment) -> bytes:
    """The words that hold these digits, the first digit lowest, each in little-endian bytes."""
    base, per_word, width = segment.base, segment.digits, segment.word_bytes
    found = bytearray()
    for begin in range(0, len(digits), per_word):
        word = 0
        for digit in reversed(digits[begin : begin + per_word]):
            word = word * base + digit
        found += word.to_bytes(width, "little")
    return bytes(found)


def unpack(content: bytes, limit: int = DEFAULT_LIMIT) -> bytes:
    """The file that a download holds.

    Raises:
        AczError: when the download is damaged, or says that the file has more than `limit` bytes.
    """
    header = read_header(content, limit)
    begin = HEADER.size + header.coded
    modelled = modelled_bytes(content[HEADER.size : begin], header.described + header.others)
    others = modelled[header.described :]
    tables, segments = read_description(modelled[: header.described], header)
    symbols = _Symbols(content[begin:], header.lane_bits, tables)
    found = bytearray()
    at = 0
    for segment in segments:
        if segment.kind == OTHER:
            found += others[at : at + segment.length]
            at += segment.length
            continue
        if segment.kind == KERNELS:
            taken = symbols.kernels(segment)
        else:
            taken = symbols.taken(segment.symbols, segment.run, segment.classes)
        found += taken if segment.base == 256 and segment.word_bytes == 1 else words_of(taken, segment)
    symbols.end()
    return checked(bytes(found), header)


def checked(found: bytes, header: Header) -> bytes:
    """The rebuilt file, if it has the hash that the header says."""
    if hashlib.sha256(found).digest() != header.sha256:
        raise AczError("what it holds does not have the hash that it says")
    return found


def main() -> int:
    """Unpack one file; written whole or not at all."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python acz_decoder.py FILE.acz FILE\n")
        return 2
    source, target = sys.argv[1:]
    beside = target + ".part"
    try:
        with open(source, "rb") as file:
            found = unpack(file.read())
        with open(beside, "wb") as file:
            file.write(found)
        os.replace(beside, target)
    except (AczError, OSError) as error:
        sys.stderr.write(f"error: {source}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
