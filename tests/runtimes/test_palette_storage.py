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
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import compact, load_model, save_model
from autocompress.runtimes.palette_storage import Palette, palette_of, store, stored, without_palettes
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
    ((name, words, found),) = stored(model)
    assert (name, words) == ("weight", "weight_indices")
    np.testing.assert_array_equal(found.values(), made.values())
    np.testing.assert_array_equal(found.indices, made.indices)


def test_a_model_without_its_palettes_is_the_plain_one() -> None:
    made = palette(4, 1, (12, 5))
    plain = product(made.values())
    packed = store(product(np.zeros((12, 5), np.float32)), {"weight": made})
    assert [one.domain for one in packed.opset_import] == ["", "palettes"]
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


def test_each_number_of_entries_has_one_function_in_the_file() -> None:
    model = product(np.zeros((12, 5), np.float32))
    for name in ("second", "third"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((5, 5), np.float32), name))
    model.graph.node[0].output[0] = "a"
    model.graph.node.extend(
        [helper.make_node("MatMul", ["a", "second"], ["b"]), helper.make_node("MatMul", ["b", "third"], ["y"])]
    )
    palettes = {"weight": palette(4, 1, (12, 5)), "second": palette(4, 1, (5, 5)), "third": palette(3, 1, (5, 5))}
    store(model, palettes)
    assert [function.name for function in model.functions] == ["unpack3", "unpack4"]
    assert {name: one.shape for name, _, one in stored(model)} == {n: p.shape for n, p in palettes.items()}


def test_the_palette_of_a_tensor_has_its_values_in_each_group() -> None:
    values = np.array([[1, 1, 2], [5, 6, 7]], dtype=np.int8)
    found = palette_of(values, 2)
    np.testing.assert_array_equal(found.entries, [[1, 2, 2], [5, 6, 7]])
    np.testing.assert_array_equal(found.values(), values)
