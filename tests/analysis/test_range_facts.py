from pathlib import Path

import numpy as np
import pytest
from onnx.helper import make_node as node

from autocompress.analysis.range_facts import outlier_ratio, range_spread
from autocompress.runtimes.onnx_file import save_model
from autocompress.testing.networks import onnx_model

ROW = np.linspace(0.5, 1.0, 6)


def test_the_widest_channel_is_compared_with_the_median_one_in_every_weight() -> None:
    widths = np.array([1, 1, 0, 1, 12, 1e-9])
    stored = {
        "conv": (widths[:, None, None, None] * np.ones((6, 3, 3, 3))).astype(np.float32),
        "linear": np.outer(ROW, [1, 1, 2, 1]).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "conv"], ["c"]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "linear"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": ("n", 3, 8, 8)}, {"y": ("n", 4)}, stored)
    # neither the dead channel nor the one that is nearly dead counts
    assert range_spread(model) == pytest.approx(12)
    del model.graph.node[:2]
    assert range_spread(model) == pytest.approx(2)
    del model.graph.node[:]
    assert range_spread(model) == 1.0


def test_outliers_are_found_in_what_layers_read(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "factors"], ["m"]), node("MatMul", ["m", "w"], ["y"])]
    stored = {"factors": np.array([1, 1, 50, 1, 0], np.float32), "w": np.ones((5, 2), np.float32)}
    model = onnx_model(nodes, {"x": ("n", "t", 5)}, {"y": ("n", "t", 2)}, stored)
    artifact = save_model(model, tmp_path / "a.onnx")
    feeds = [{"x": np.full((2, 3, 5), size, np.float32)} for size in (1.0, -2.0)]
    assert outlier_ratio(artifact, feeds) == pytest.approx(50)
    assert outlier_ratio(artifact, feeds[:1]) == pytest.approx(50)


def test_a_layer_that_reads_the_model_s_input_counts_too(tmp_path: Path) -> None:
    model = onnx_model(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": ("n", 3, 4, 4)},
        {"y": ("n", 2, 4, 4)},
        {"w": np.ones((2, 3, 1, 1), np.float32)},
    )
    artifact = save_model(model, tmp_path / "a.onnx")
    image = np.ones((1, 3, 4, 4), np.float32) * np.array([1, 2, 9]).reshape(1, 3, 1, 1)
    assert outlier_ratio(artifact, [{"x": image.astype(np.float32)}]) == pytest.approx(4.5)
