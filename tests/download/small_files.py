"""Small ONNX files with every kind of stored number, and ways to damage their downloads."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autocompress.download.acz_decoder import HEADER, modelled_bytes, read_header
from autocompress.download.byte_coder import coded_bytes
from autocompress.download.segments import Packed
from autocompress.runtimes.radix import Digits, packed

SIXES = Digits(6, 1, 3)
FOURS = Digits(4, 1, 4)
SHAPE, LIKE_SHAPE = (8, 4, 3, 3), (60, 8, 1, 2)


def small_model(channels: int = 8, seed: int = 0) -> onnx.ModelProto:
    """A graph that need not run, with weights as int8, float, digits of words, uint4, and scales as float_data."""
    random = np.random.default_rng(seed)
    weights = np.clip(np.rint(random.normal(0, 30, (channels, 4, 3, 3))), -128, 127).astype(np.int8)
    words = packed(random.choice(6, channels * 36, p=(0.5, 0.3, 0.1, 0.05, 0.03, 0.02)), SIXES)
    nibbles = TensorProto(
        name="nibbles", data_type=TensorProto.UINT4, dims=[128], raw_data=bytes(random.integers(0, 256, 64).tolist())
    )
    scales = TensorProto(name="scales", data_type=TensorProto.FLOAT, dims=[16])
    scales.float_data.extend(random.random(16).tolist())
    tensors = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(words, "words"),
        nibbles,
        scales,
        numpy_helper.from_array(random.random(20).astype(np.float32), "bias"),
        numpy_helper.from_array(np.arange(2, dtype=np.int64), "pads"),
    ]
    names = ("a", "b", "c", "d", "e", "f")
    nodes = [helper.make_node("Relu", [first], [second]) for first, second in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "f")]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))


def small_file(channels: int = 8, seed: int = 0) -> bytes:
    return small_model(channels, seed).SerializeToString(deterministic=True)


def kernels(random: np.random.Generator, shape: tuple[int, ...], values: int) -> np.ndarray:
    """Weights of kernels whose places are mostly the same, of so many values from 0."""
    centre = random.integers(0, values, (*shape[:2], *(1 for _ in shape[2:])))
    return np.where(random.random(shape) < 0.95, centre, random.integers(0, values, shape)).astype(np.uint8)


def tiny_file() -> bytes:
    """A file whose tables and graph are short, since the byte model takes most of the time of a decoder."""
    random = np.random.default_rng(0)
    alike = packed(kernels(random, LIKE_SHAPE, 4), FOURS)
    words = packed(random.choice(6, 216, p=(0.5, 0.3, 0.1, 0.05, 0.03, 0.02)), SIXES)
    arrays = {"alike": alike, "bits": random.random(80) < 0.1, "words": words}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return helper.make_model(helper.make_graph([], "g", [], [], tensors)).SerializeToString(deterministic=True)


PACKED = {"words": Packed(SIXES, {0: SHAPE}), "alike": Packed(FOURS, {0: LIKE_SHAPE})}


def damaged(download: bytes, random: np.random.Generator) -> bytes:
    """A download with one kind of damage, chosen at random."""
    content = bytearray(download)
    kind = int(random.integers(8))
    at = int(random.integers(len(content)))
    if kind == 0:
        content[at] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at] = int(random.integers(256))
        content[int(random.integers(len(content)))] ^= int(random.integers(1, 256))
    elif kind == 3:
        other = int(random.integers(len(content)))
        content[at], content[other] = content[other], content[at]
    elif kind == 4:
        content[at:at] = random.bytes(int(random.integers(1, 20)))
    elif kind == 5:
        del content[at : at + int(random.integers(1, 20))]
    elif kind == 6:
        # a header with sizes that cannot be
        place, form = ((4, "<Q"), (44, "<I"), (48, "<I"), (52, "<I"), (56, "<B"))[int(random.integers(5))]
        largest = 256 ** struct.calcsize(form) - 1
        struct.pack_into(form, content, place, int(random.choice([0, 1, 255, 1 << 16, 1 << 31, 1 << 62])) & largest)
    else:
        content = bytearray(random.bytes(int(random.integers(200))))
    return bytes(content)


def described_otherwise(download: bytes, random: np.random.Generator) -> bytes:
    """A download whose tables and segments are damaged, and coded again so that they are read as they are."""
    header = read_header(download)
    end = HEADER.size + header.coded
    known = bytearray(modelled_bytes(download[HEADER.size : end], header.described + header.others))
    for _ in range(int(random.integers(1, 4))):
        value = random.choice([0, 1, 2, 127, 128, 255, random.integers(256)])
        known[int(random.integers(header.described))] = int(value)
    code = coded_bytes(bytes(known))
    begun = bytearray(download[: HEADER.size])
    struct.pack_into("<I", begun, 52, len(code))
    if random.integers(2):
        struct.pack_into("<Q", begun, 4, int(random.integers(1, 1000 * len(download))))
    return bytes(begun) + code + download[end:]
