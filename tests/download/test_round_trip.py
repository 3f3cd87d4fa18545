"""Whatever goes into a download comes out of it, by each decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from autocompress.download.acz_decoder import HEADER, modelled_bytes, read_header, successor, unpack
from autocompress.download.byte_coder import coded_bytes
from autocompress.download.decoder import unpacked_content
from autocompress.download.encoder import packed_content
from autocompress.download.files import packed_tensors
from autocompress.download.kernel_models import Kernel
from autocompress.download.segments import Layout, Packed, layouts_of, parts_of
from autocompress.download.table_choice import choose_tables
from autocompress.runtimes.palette_storage import Palette, store
from autocompress.runtimes.radix import Digits, digits_for, packed

from .small_files import PACKED, kernels, small_file, small_model

SLOWLY = settings(max_examples=12, derandomize=True, deadline=None, database=None)


def comes_back(content: bytes, known: dict[str, Packed] | None = None) -> bytes:
    download = packed_content(content, known)
    assert unpack(download) == content
    assert unpacked_content(download) == content
    return download


@SLOWLY
@given(st.binary(max_size=300))
@example(b"")
@example(bytes(3_000))
def test_any_bytes_come_back(content: bytes) -> None:
    comes_back(content)


@SLOWLY
@given(st.binary(max_size=200))
def test_any_bytes_come_back_from_the_byte_model(content: bytes) -> None:
    assert modelled_bytes(coded_bytes(content), len(content)) == content


@SLOWLY
@given(st.integers(2, 256), st.integers(400, 500), st.integers(0, 1000))
def test_any_digits_come_back(base: int, count: int, seed: int) -> None:
    digits = digits_for(base)
    numbers = np.random.default_rng(seed).integers(0, base, count)
    content = _file_of(packed(numbers, digits))
    assert parts_of(content, {"words": Packed(digits)})[0].digits == digits
    comes_back(content, {"words": Packed(digits, {0: (count // 4, 4)})})


def _file_of(words: np.ndarray) -> bytes:
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(words, "words")])
    return helper.make_model(graph).SerializeToString()


def test_words_that_hold_no_digits_come_back_as_bytes() -> None:
    # 255 is no word of three digits below 6
    content = _file_of(np.full((100, 1), 255, dtype=np.uint8))
    comes_back(content, {"words": Packed(Digits(6, 1, 3))})
    comes_back(content, {"words": Packed(Digits(6, 1, 9))})


def test_a_file_with_every_kind_of_numbers_comes_back() -> None:
    content = small_file()
    kinds = [part.kind for part in parts_of(content, PACKED)]
    assert kinds == ["int8", "digits of 6", "digits of 16", "planes of 4", "planes of 4"]
    comes_back(content, PACKED)


def test_zeros_are_padded_until_decoders_believe_them() -> None:
    content = _file_of(np.zeros((1000, 1000), dtype=np.uint8))
    download = comes_back(content)
    assert len(content) / 1000 <= len(download) < len(content) / 900


def test_a_download_is_smaller_than_zstd_where_there_are_weights() -> None:
    content = small_file(channels=512)
    download = comes_back(content, PACKED)
    assert len(download) < len(zstandard.ZstdCompressor(level=19).compress(content))


def test_digits_take_about_their_entropy() -> None:
    shares = np.array((0.6, 0.2, 0.1, 0.05, 0.03, 0.02))
    numbers = np.random.default_rng(0).choice(6, 300_000, p=shares)
    content = _file_of(packed(numbers, Digits(6, 1, 3)))
    download = packed_content(content, {"words": Packed(Digits(6, 1, 3))})
    entropy = -(shares * np.log2(shares)).sum() * len(numbers) / 8
    assert len(download) < 1.01 * entropy + 300


def test_channels_of_different_spread_take_tables_of_their_own() -> None:
    random = np.random.default_rng(0)
    spread = np.where(np.arange(32) % 2, 5, 40)[None, :, None]
    weights = np.clip(np.rint(random.normal(0, 1, (64, 32, 9)) * spread), -127, 127).astype(np.int8)
    by_channel = len(comes_back(_file_of(weights)))
    order = random.permutation(weights.size)
    assert by_channel < 0.95 * len(comes_back(_file_of(weights.reshape(-1)[order].reshape(weights.shape))))


@pytest.mark.parametrize("values", [4, 200])
def test_kernels_of_like_weights_are_coded_by_their_neighbours(values: int) -> None:
    random = np.random.default_rng(0)
    weights = kernels(random, (64, 32, 3, 3), values)
    content = _file_of(weights)
    parts = parts_of(content, {})
    choose_tables(parts)
    assert parts[0].model is not None
    alike = comes_back(content)
    mixed = comes_back(_file_of(random.permuted(weights.reshape(-1)).reshape(weights.shape)))
    assert len(alike) < 0.8 * len(mixed)


def test_kernels_of_packed_numbers_are_coded_by_their_neighbours() -> None:
    weights = kernels(np.random.default_rng(0), (15, 15, 3, 3), 5)
    # 2025 numbers, and what fills up the last word of 10
    digits = digits_for(5)
    content = _file_of(packed(weights, digits))
    known = {"words": Packed(digits, {0: weights.shape})}
    parts = parts_of(content, known)
    choose_tables(parts)
    assert parts[0].model is not None
    assert len(parts[0].symbols) % 9
    comes_back(content, known)


def test_layouts_follow_the_axes_of_a_weight() -> None:
    assert layouts_of((8, 4, 3, 3), 288) == (Layout(1, 1), Layout(36, 8), Layout(9, 4), Layout(1, 3))
    # numbers that fill up the last word belong to no channel of their own
    assert layouts_of((8, 4), 33) == (Layout(1, 1), Layout(4, 8), Layout(1, 4))
    assert layouts_of((), 33) == (Layout(1, 1),)
    assert layouts_of((0, 4), 0) == (Layout(1, 1),)


@pytest.mark.parametrize(
    ("name", "following"), [(b"a", b"b"), (b"z", b"A"), (b"Z", b"aa"), (b"aZ", b"ba"), (b"a1", b"a1"), (b"", b"a")]
)
def test_names_of_a_graph_are_counted_in_letters(name: bytes, following: bytes) -> None:
    assert successor(name) == following


def test_tensors_of_branches_and_constants_are_found(tmp_path: Path) -> None:
    inside = numpy_helper.from_array(np.arange(100, dtype=np.int8), "inside")
    constant = helper.make_node("Constant", [], ["c"], value=inside)
    branch = helper.make_graph([constant], "branch", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    content = helper.make_model(helper.make_graph([node, constant], "g", [], [])).SerializeToString()
    assert [part.end - part.begin for part in parts_of(content, {})] == [100, 100, 100]
    comes_back(content)


def test_stored_palettes_are_coded_by_their_indices() -> None:
    model = small_model()
    random = np.random.default_rng(0)
    other = np.zeros((60, 4, 3, 3), dtype=np.int8)
    model.graph.initializer.append(numpy_helper.from_array(other, "other"))
    shapes = {"weights": (8, 4, 3, 3), "other": other.shape}
    entries = np.arange(6, dtype=np.int8)[None, :]
    store(model, {n: Palette(entries, random.integers(0, 6, (1, int(np.prod(s)))), s) for n, s in shapes.items()})
    known = packed_tensors(model)
    assert [list(one.shapes.values()) for one in known.values()] == [list(shapes.values())]
    content = model.SerializeToString()
    parts = [part for part in parts_of(content, known) if part.kind == "digits of 6"]
    assert [part.kernel for part in parts] == [(Kernel(9, 3), Layout(9, 4))] * 2
    comes_back(content, known)


def test_the_header_says_what_the_file_is() -> None:
    content = small_file()
    download = packed_content(content)
    header = read_header(download)
    assert download[:4] == b"ACZ\x01"
    assert header.size == len(content)
    assert header.described + header.others <= 64 * header.coded
    assert HEADER.size == 57


def test_the_same_file_gives_the_same_download() -> None:
    content = onnx.ModelProto.FromString(small_file()).SerializeToString(deterministic=True)
    assert packed_content(content, PACKED) == packed_content(content, PACKED)
