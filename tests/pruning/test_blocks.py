from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.errors import TechniqueError
from autocompress.pruning.blocks import candidate_blocks, drop_blocks, droppable_blocks, is_ignored, skipping


class Residual(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width_in, width_out, 3, padding=1), nn.BatchNorm2d(width_out), nn.ReLU())
        self.same = width_in == width_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.same else self.body(x)


class Layer(nn.Module):
    """Gives a tuple, as encoder layers of Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(8, 8), nn.GELU())

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor]:
        return (x + self.linear(x),)


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, None)[0]
        return x.mean(1)


def network() -> nn.Module:
    torch.manual_seed(0)
    stages = nn.Sequential(Residual(4, 8), *(Residual(8, 8) for _ in range(3)))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


IMAGES = Example((np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32),))
TOKENS = Example((np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32),))


def outputs(module: nn.Module, example: Example = IMAGES) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(*example.tensors().values())


def test_blocks_that_keep_their_shape_are_found_and_the_one_that_widens_is_not() -> None:
    assert list(droppable_blocks(network(), IMAGES)) == ["1.1", "1.2", "1.3"]


def test_a_stage_that_keeps_its_shape_is_no_block_but_holds_them() -> None:
    torch.manual_seed(0)
    stem, stage = nn.Sequential(nn.Conv2d(3, 8, 1)), nn.Sequential(*(Residual(8, 8) for _ in range(3)))
    assert list(droppable_blocks(nn.Sequential(stem, stage), IMAGES)) == ["1.0", "1.1", "1.2"]


def test_encoder_layers_that_give_tuples_are_found_with_that_fact() -> None:
    assert droppable_blocks(Stack(), TOKENS) == {"layers.0": True, "layers.1": True, "layers.2": True}


class Handing(nn.Module):
    """An encoder whose layers hand something more on to each other, as T5's do with the biases of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Giving() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x, more = layer(x)
            x = x + more
        return x.mean(1)


class Giving(Layer):
    """Gives twice what the layer gives."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        return super().forward(x, mask) * 2


def test_a_block_that_the_network_does_not_run_without_cannot_be_dropped() -> None:
    assert list(candidate_blocks(Handing(), TOKENS)) == ["layers.0", "layers.1", "layers.2"]
    assert droppable_blocks(Handing(), TOKENS) == {}


def test_layers_of_an_mlp_are_no_blocks() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    assert droppable_blocks(module, Example((np.ones((2, 8), np.float32),))) == {}


def test_looking_for_blocks_leaves_the_module_without_hooks() -> None:
    module = network()
    droppable_blocks(module, IMAGES)
    assert not any(part._forward_hooks for part in module.modules())


def test_skipping_changes_the_outputs_and_puts_the_blocks_back() -> None:
    module = network()
    before = outputs(module)
    with skipping(module, ["1.2"], droppable_blocks(module, IMAGES)):
        assert not torch.allclose(outputs(module), before)
    assert torch.equal(outputs(module), before)


def test_a_dropped_tuple_layer_still_gives_a_tuple() -> None:
    module = Stack()
    kinds = droppable_blocks(module, TOKENS)
    drop_blocks(module, ["layers.0", "layers.1", "layers.2"], kinds)
    assert torch.allclose(outputs(module, TOKENS), TOKENS.tensors()["input"].mean(1))


def test_a_block_that_cannot_go_is_named() -> None:
    module = network()
    with pytest.raises(TechniqueError, match=r"'1\.0' is no block"):
        drop_blocks(module, ["1.0"], droppable_blocks(module, IMAGES))


def test_a_structural_copy_shares_its_weights_and_drops_blocks_alone() -> None:
    module = network()
    before = outputs(module)
    copy = with_shared_weights(module)
    assert copy is not module
    assert all(a is b for a, b in zip(copy.parameters(), module.parameters(), strict=True))
    drop_blocks(copy, ["1.1"], droppable_blocks(copy, IMAGES))
    assert torch.equal(outputs(module), before)


def test_own_weights_can_change_without_the_original_noticing() -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    copy = with_own_weights(with_shared_weights(module))
    with torch.no_grad():
        for tensor in (*copy.parameters(), *copy.buffers()):
            tensor.fill_(7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_layers_that_share_a_weight_share_its_copy() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    original = module[0].weight
    with_own_weights(module)
    assert module[0].weight is module[1].weight
    assert module[0].weight is not original


def test_a_recurrent_layer_computes_with_the_weights_of_its_own() -> None:
    module = nn.LSTM(4, 3, batch_first=True)
    copy = with_own_weights(with_shared_weights(module))
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
        inputs = torch.ones(1, 2, 4)
        assert not copy(inputs)[0].any()
        assert module(inputs)[0].any()


@pytest.mark.parametrize(
    ("ignore", "ignored"),
    [([], False), (["1.1"], True), (["1"], True), (["1.1.body.0"], True), (["*.body.0"], True), (["1.2"], False)],
)
def test_a_block_is_ignored_with_what_is_around_it_and_what_is_inside(ignore: list[str], ignored: bool) -> None:
    assert is_ignored(network(), "1.1", ignore) is ignored


def test_a_block_that_is_not_there_is_not_ignored() -> None:
    assert not is_ignored(network(), "7", ["*"])
