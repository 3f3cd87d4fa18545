from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from autocompress.core.source import Array
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.blockwise_weights import Blocks, BlockwiseWeight, quantize_weights, quantized
from autocompress.runtimes.onnx_file import compact, mark_float, save_model
from autocompress.testing.networks import onnx_model

GENERATOR = np.random.default_rng(0)
ALL_BLOCKS = [Blocks(bits, size, symmetric) for bits in (4, 8) for size in (32, 64) for symmetric in (True, False)]


def weight(rows: int, columns: int) -> NDArray[np.float32]:
    return GENERATOR.standard_normal((rows, columns)).astype(np.float32)


def restored(made: BlockwiseWeight, blocks: Blocks, columns: int) -> NDArray[np.float32]:
    """What the operators compute with."""

    def unpacked(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        if blocks.bits == 8:
            return codes.astype(np.float32)
        both = np.stack([codes & 15, codes >> 4], axis=-1)
        return both.reshape(*codes.shape[:-1], -1).astype(np.float32)

    count = made.scales.shape[1]
    zeros = 2.0 ** (blocks.bits - 1) if made.zeros is None else unpacked(made.zeros)[:, :count, None]
    values = (unpacked(made.values) - zeros) * made.scales[:, :, None]
    return values.reshape(len(values), -1)[:, :columns].astype(np.float32)


def rewritten(
    model: onnx.ModelProto, inputs: Mapping[str, Array], folder: Path, blocks: Blocks = ALL_BLOCKS[0]
) -> tuple[int, onnx.ModelProto, float]:
    """How many weights were replaced, the new graph, and how far its first output is from the old one's."""
    before = save_model(model, folder / "before.onnx")
    changed = onnx.load(before.path)
    count = quantize_weights(changed, blocks, 0)
    after = save_model(compact(changed), folder / "after.onnx")
    wanted, found = (OnnxRuntime().load(one, 1, {}).run(inputs)[0] for one in (before, after))
    assert wanted.shape == found.shape
    return count, onnx.load(after.path), float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@given(st.sampled_from(ALL_BLOCKS), st.integers(1, 70), st.sampled_from([0.0, 1e-6, 1.0, 1e6]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_value_is_further_away_than_a_step_of_its_block(
    blocks: Blocks, columns: int, scale: float, seed: int
) -> None:
    given_weight = (np.random.default_rng(seed).standard_normal((3, columns)) * scale).astype(np.float32)
    made = quantized(given_weight, blocks)
    steps = np.repeat(np.abs(made.scales), blocks.size, axis=1)[:, :columns]
    error = np.abs(restored(made, blocks, columns) - given_weight)
    # half a step by rounding, the other half where the range ends or its zero was rounded
    assert np.all(error <= steps * 1.001)
    assert np.isfinite(made.scales).all()
    sizes = made.values.nbytes + made.scales.nbytes + (0 if made.zeros is None else made.zeros.nbytes)
    assert sizes == blocks.stored_bytes(3, columns)


@pytest.mark.parametrize("blocks", ALL_BLOCKS, ids=str)
@pytest.mark.parametrize("columns", [64, 80])
def test_products_compute_with_the_rounded_weights(blocks: Blocks, columns: int, tmp_path: Path) -> None:
    values = weight(48, columns)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = onnx_model([node], {"x": ("batch", "tokens", columns)}, {"y": ("batch", "tokens", 48)}, {"w": values.T})
    assert quantize_weights(model, blocks, 0) == 1
    made = save_model(compact(model), tmp_path / "made.onnx")
    session = OnnxRuntime().load(made, 1, {})
    wanted = restored(quantized(values, blocks), blocks, columns)
    for shape in ((1, 1), (2, 7), (5, 3)):
        x = GENERATOR.standard_normal((*shape, columns)).astype(np.float32)
        (found,) = session.run({"x": x})
        np.testing.assert_allclose(found, x @ wanted.T, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("by_rows", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gemm_becomes_a_product_and_a_sum(by_rows: int, tmp_path: Path, *, bias: bool) -> None:
    values = weight(64, 64)
    inputs = ["x", "w", *["b"] * bias]
    node = helper.make_node("Gemm", inputs, ["y"], transB=by_rows)
    weights = {"w": values, **({"b": weight(1, 64)[0]} if bias else {})}
    model = onnx_model([node], {"x": ("batch", 64)}, {"y": ("batch", 64)}, weights)
    count, made, error = rewritten(model, {"x": weight(5, 64)}, tmp_path)
    assert count == 1
    assert [node.op_type for node in made.graph.node] == ["MatMulNBits", *["Add"] * bias]
    assert 0 < error < 0.15


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5),
        helper.make_node("MatMul", ["w", "x"], ["y"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ],
    ids=["scaled", "on the left", "sum"],
)
def test_what_the_operators_cannot_do_stays(node: onnx.NodeProto, tmp_path: Path) -> None:
    model = onnx_model([node], {"x": (64, 64)}, {"y": (64, 64)}, {"w": weight(64, 64)})
    assert rewritten(model, {"x": weight(64, 64)}, tmp_path)[::2] == (0, 0.0)


def test_small_weights_and_those_of_nodes_in_float_stay(tmp_path: Path) -> None:
    names = ["MatMul", "MatMul", "MatMul"]
    chain = ["x", "a", "b", "y"]
    nodes = [helper.make_node(op, [chain[i], f"w{i}"], [chain[i + 1]]) for i, op in enumerate(names)]
    weights = {"w0": weight(64, 64), "w1": weight(64, 64), "w2": weight(64, 4)}
    model = mark_float(onnx_model(nodes, {"x": (2, 64)}, {"y": (2, 4)}, weights), [0])
    count, made, _ = rewritten(model, {"x": weight(2, 64)}, tmp_path)
    assert count == 1
    assert [node.op_type for node in made.graph.node] == ["MatMul", "MatMulNBits", "MatMul"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_table_that_is_looked_up_and_multiplied_with_is_stored_once(
    bits: int, tmp_path: Path, *, symmetric: bool
) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["words", "turned"], ["logits"]),
    ]
    model = onnx_model(nodes, {}, {"logits": ("batch", "tokens", 40)}, {"table": weight(40, 96)})
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "tokens"])
    model.graph.input.append(ids)
    count, made, error = rewritten(
        model, {"ids": np.array([[0, 3, 39], [7, 7, 1]])}, tmp_path, Blocks(bits, 32, symmetric)
    )
    assert count == 1
    assert [node.op_type for node in made.graph.node] == ["GatherBlockQuantized", "Reshape", "MatMulNBits"]
    large = [one for one in made.graph.initializer if numpy_helper.to_array(one).nbytes >= 40 * 96 * bits // 8]
    assert len(large) == 1
    assert 0 < error < (0.15 if bits == 4 else 0.01)


def test_a_table_whose_rows_are_no_whole_blocks_stays(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    model = onnx_model([node], {}, {"y": ("batch", 80)}, {"table": weight(40, 80)})
    model.graph.input.append(helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch"]))
    assert rewritten(model, {"ids": np.array([1, 2])}, tmp_path)[::2] == (0, 0.0)
