"""Palettes in a file: every number of entries, groups, shapes; as the runtime reads them and as they come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from autocompress.core.source import Array
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import compact, load_model, save_model
from autocompress.runtimes.palette_reading import stored_palettes, without_palettes
from autocompress.runtimes.palette_storage import Palette, palette_of, store
from autocompress.testing.networks import onnx_model


def product(weight: Array) -> onnx.ModelProto:
    """A graph that multiplies its input with a weight of two dimensions."""
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    return onnx_model([node], {"x": ("n", weight.shape[0])}, {"y": ("n", weight.shape[1])}, {"weight": weight})


def palette(entries: int, groups: int, shape: tuple[int, ...], seed: int = 0) -> Palette:
    random = np.random.default_rng(seed)
    table = random.standard_normal((groups, entries)).astype(np.float32)
    return Palette(table, random.integers(0, entries, (groups, int(np.prod(shape)) // groups)), shape)


@pytest.mark.parametrize("entries", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 17, 31, 32, 100, 256])
def test_the_runtime_reads_what_was_stored(entries: int, tmp_path: Path) -> None:
    made = palette(entries, 3, (30, 7))
    model = store(product(np.zeros((30, 7), np.float32)), {"weight": made})
    onnx.checker.check_model(model, full_check=True)
    artifact = save_model(compact(model), tmp_path / "packed.onnx")
    x = np.eye(30, dtype=np.float32)
    (found,) = OnnxRuntime().load(artifact, 1, {}).run({"x": x})
    np.testing.assert_array_equal(found, made.values())


@settings(max_examples=25)
@given(st.integers(1, 40), st.sampled_from([1, 2, 6]), st.integers(0, 2**32 - 1))
def test_palettes_come_back_from_the_file(entries: int, groups: int, seed: int) -> None:
    made = palette(entries, groups, (12, 5), seed)
    model = store(product(np.zeros((12, 5), np.float32)), {"weight": made})
    (found,) = stored_palettes(model)
    assert (found.tensor, found.words) == ("weight", "palettes0_words")
    assert found.digits.base == entries
    np.testing.assert_array_equal(found.palette.values(), made.values())
    np.testing.assert_array_equal(found.palette.indices, made.indices)


def test_a_model_without_its_palettes_is_the_plain_one() -> None:
    made = palette(4, 1, (12, 5))
    plain = product(made.values())
    packed = store(product(np.zeros((12, 5), np.float32)), {"weight": made})
    assert without_palettes(packed).SerializeToString() == plain.SerializeToString()
    assert without_palettes(plain) is plain


def test_a_shape_that_a_node_reads_too_stays(tmp_path: Path) -> None:
    made = palette(4, 1, (12, 5))
    model = product(np.zeros((12, 5), np.float32))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([12, 5]), "size"))
    model.graph.node.append(helper.make_node("Reshape", ["weight", "size"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [12, 5]))
    artifact = save_model(compact(store(model, {"weight": made})), tmp_path / "packed.onnx")
    plain = without_palettes(load_model(artifact.path))
    onnx.checker.check_model(plain)
    (_, found) = (
        OnnxRuntime().load(save_model(plain, tmp_path / "plain.onnx"), 1, {}).run({"x": np.zeros((1, 12), np.float32)})
    )
    np.testing.assert_array_equal(found, made.values())


def several() -> tuple[onnx.ModelProto, dict[str, Palette]]:
    """A graph of three products, two of whose weights have equally many values."""
    model = product(np.zeros((12, 5), np.float32))
    for name in ("second", "third"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((5, 5), np.float32), name))
    model.graph.node[0].output[0] = "a"
    model.graph.node.extend(
        [helper.make_node("MatMul", ["a", "second"], ["b"]), helper.make_node("MatMul", ["b", "third"], ["y"])]
    )
    palettes = {"weight": palette(4, 1, (12, 5)), "second": palette(4, 1, (5, 5)), "third": palette(3, 1, (5, 5))}
    return model, palettes


@pytest.mark.parametrize(("most", "parts"), [(2_000_000, 2), (70, 3), (1, 3)])
def test_tensors_of_equally_many_values_are_unpacked_together_up_to_a_size(
    most: int, parts: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("autocompress.runtimes.palette_storage.MOST_NUMBERS", most)
    model, palettes = several()
    plain = product(np.zeros((12, 5), np.float32))
    store(model, palettes)
    assert sum(node.op_type == "Mod" for node in model.graph.node) == parts
    found = {one.tensor: one.palette.values() for one in stored_palettes(model)}
    assert set(found) == set(palettes)
    for name, values in found.items():
        np.testing.assert_array_equal(values, palettes[name].values())
    x = np.eye(12, dtype=np.float32)
    packed = save_model(compact(model), tmp_path / "packed.onnx")
    plain = save_model(without_palettes(load_model(packed.path)), tmp_path / "plain.onnx")
    assert not stored_palettes(load_model(plain.path))
    one, other = (OnnxRuntime().load(file, 1, {}).run({"x": x})[0] for file in (packed, plain))
    np.testing.assert_array_equal(one, other)


def test_graphs_of_others_that_begin_alike_hold_no_palettes() -> None:
    model, palettes = several()
    store(model, palettes)
    names = [node.op_type for node in model.graph.node]
    # another operator in the middle: it may compute something else
    model.graph.node[names.index("Mod")].op_type = "Max"
    assert [one.tensor for one in stored_palettes(model)] == ["third"]


def test_operators_that_are_too_old_are_refused() -> None:
    model = product(np.zeros((12, 5), np.float32))
    model.opset_import[0].version = 12
    with pytest.raises(TechniqueError, match="13 is needed"):
        store(model, {"weight": palette(4, 1, (12, 5))})


def test_the_palette_of_a_tensor_has_its_values_in_each_group() -> None:
    values = np.array([[1, 1, 2], [5, 6, 7]], dtype=np.int8)
    found = palette_of(values, 2)
    np.testing.assert_array_equal(found.entries, [[1, 2, 2], [5, 6, 7]])
    np.testing.assert_array_equal(found.values(), values)
