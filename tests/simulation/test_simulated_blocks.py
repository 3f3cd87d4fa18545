from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation import recorded
from autocompress.simulation.blocks import blocks_of
from autocompress.simulation.float_weights import float_weights, load_float_weights
from autocompress.simulation.graph_module import GraphModule
from autocompress.simulation.recorded import Recorded, items_that_fit
from autocompress.testing.networks import Exports, labelled

Quantized = Callable[[str], Path]


def float_model(exports: Exports, name: str) -> onnx.ModelProto:
    return load_model(exports(OnnxRuntime(), name).artifact.path)


def test_a_block_ends_at_a_residual_join(quantized: Quantized) -> None:
    module = GraphModule(load_model(quantized("resnet")))
    blocks = blocks_of(module)
    assert [len(block.layers) for block in blocks] == [1, 2, 2, 2, 2, 2, 1]
    assert [layer for block in blocks for layer in block.layers] == module.layers()
    # each begins where the one before it ends, and the joins are quantized
    assert [block.inputs[0] for block in blocks[1:6]] == [block.output for block in blocks[:5]]
    assert all(block.end is not None for block in blocks[:6])
    image = torch.from_numpy(labelled("resnet", 2)[0][0])
    everything = [name for block in blocks for name in (*block.inputs, block.output)]
    with torch.no_grad():
        whole = module.compute({"input": image}, everything)
        for block in blocks:
            part = module.compute({name: whole[name] for name in block.inputs}, (block.output,))
            assert torch.equal(part[block.output], whole[block.output])


def test_layers_between_which_more_than_one_tensor_passes_are_alone(quantized: Quantized) -> None:
    module = GraphModule(load_model(quantized("transformer")))
    blocks = blocks_of(module)
    assert [layer for block in blocks for layer in block.layers] == module.layers()
    # the mask passes beside everything
    assert {len(block.layers) for block in blocks} == {1}
    assert all(block.inputs == (block.layers[0].input,) for block in blocks)


@pytest.mark.parametrize("name", ["resnet", "mlp", "cnn, int8"])
def test_the_float_weights_are_found_by_their_values(exports: Exports, quantized: Quantized, name: str) -> None:
    model = float_model(exports, name.partition(",")[0])
    module = GraphModule(load_model(quantized(name)))
    before = {quantizer: quantizer.value.detach().clone() for quantizer in module.stored_quantizers()}
    assert load_float_weights(module, model) == set(before)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    for quantizer, value in before.items():
        assert any(np.array_equal(quantizer.value.detach().numpy(), array) for array in arrays)
        assert not torch.equal(quantizer.value, value)
    # rounding them gives the file again
    written = module.write_to(load_model(quantized(name)))
    for one, other in zip(written.graph.initializer, load_model(quantized(name)).graph.initializer, strict=True):
        gap = numpy_helper.to_array(one).astype(float) - numpy_helper.to_array(other)
        assert np.abs(gap).max() <= 1


def test_weights_that_were_changed_before_quantization_are_not_found(exports: Exports, quantized: Quantized) -> None:
    model = float_model(exports, "mlp")
    module = GraphModule(load_model(quantized("mlp")))
    changed = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [64, 64])
    changed.CopyFrom(numpy_helper.from_array(1.3 * numpy_helper.to_array(changed), changed.name))
    missing = set(module.stored_quantizers()) - set(float_weights(module, model))
    assert [tuple(quantizer.value.shape) for quantizer in missing] == [(64, 64)]


def test_recorded_tensors_are_those_of_one_pass(quantized: Quantized, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "BATCH", 5)
    # so little that nothing but what was asked for last is kept
    monkeypatch.setattr(recorded, "MOST_BYTES", 1)
    module = GraphModule(load_model(quantized("resnet")))
    image = {"input": torch.from_numpy(labelled("resnet", 12)[0][0])}
    names = [block.output for block in blocks_of(module)]
    other = copy.deepcopy(module)
    for rounding in (True, False):
        record = Recorded(module, image, quantized=rounding)
        other.enable_quantization(weights=rounding, activations=rounding)
        with torch.no_grad():
            whole = other.compute(image, names)
        for name in names:
            torch.testing.assert_close(record.values([name])[name], whole[name], rtol=1e-4, atol=1e-4)
    assert items_that_fit(module, image, names) == 1


def test_what_is_computed_on_each_batch_may_change(quantized: Quantized) -> None:
    module = GraphModule(load_model(quantized("mlp")))
    first, second = module.layers()[:2]
    assert first.bias is not None
    record = Recorded(module, {"input": torch.from_numpy(labelled("mlp", 8)[0][0])}, quantized=True)
    before = torch.cat(list(record.each(first.input, first.output)))
    with torch.no_grad():
        first.bias.value.add_(1.0)
    after = torch.cat(list(record.each(first.input, first.output)))
    torch.testing.assert_close(after, before + 1.0, rtol=1e-3, atol=1e-2)
    # what follows is computed with the change
    assert record.values([second.input])[second.input].mean() > 0


def test_weights_that_were_cut_off_at_the_ends_of_their_range_are_found(exports: Exports, quantized: Quantized) -> None:
    model = float_model(exports, "cnn")
    module = GraphModule(load_model(quantized("cnn")))
    everything = set(module.stored_quantizers())
    load_float_weights(module, model)
    for layer in module.layers():
        # sixteen levels over six tenths of the range
        layer.weight.scale.data.mul_(127 / 7 * 0.6)
        layer.weight.levels.low, layer.weight.levels.high = -8, 7
    coarse = GraphModule(module.write_to(load_model(quantized("cnn"))))
    assert len(float_weights(coarse, model)) == len(everything)
