from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.search_space import first_options
from autocompress.core.source import ArraySource, whole
from autocompress.core.technique import Context
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.graph_module import GraphModule
from autocompress.techniques import Int8Static


def test_scales_around_an_operator_that_computes_nothing_stay_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8).numpy()
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 4)
    )
    artifact = OnnxRuntime().export(network.eval(), Example((images[:2],)), tmp_path / "float.onnx")
    calibration = whole("train", ArraySource((images,), np.zeros(16, np.int64)))
    (tmp_path / "made").mkdir()
    context = Context(None, None, calibration, tmp_path / "made")
    model = load_model(Int8Static().apply(artifact, first_options(Int8Static.choices), context).path)
    module = GraphModule(model)
    module.learn_scales()
    scales = {id(one.scale): one.scale for one in module.activation_quantizers()}
    assert len(scales) < len(module.activation_quantizers())
    with torch.no_grad():
        for number, scale in enumerate(scales.values()):
            scale.mul_(1 + 0.01 * (number + 1))
    written = module.write_to(model).graph
    stored = {one.name: one.raw_data for one in written.initializer}
    pool = next(node for node in written.node if node.op_type == "MaxPool")
    before = next(node for node in written.node if pool.input[0] in node.output)
    behind = next(node for node in written.node if pool.output[0] in node.input)
    assert (before.op_type, behind.op_type) == ("DequantizeLinear", "QuantizeLinear")
    assert stored[before.input[1]] == stored[behind.input[1]]
