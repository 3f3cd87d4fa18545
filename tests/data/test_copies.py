"""Copies of a user's module: those that hold tensors with gradients, and those in another floating type."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.data import copies
from autocompress.data.copies import as_compressed, with_own_weights, with_shared_weights
from autocompress.data.example_inputs import example_for
from autocompress.data.module import call
from autocompress.errors import ModelError
from autocompress.testing.networks import labelled, small_model
from autocompress.testing.several_outputs import CachedBiases

VALUES = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


def test_a_module_that_keeps_tensors_with_gradients_is_copied() -> None:
    torch.manual_seed(0)
    module = CachedBiases().eval()
    before = call(module, Example((VALUES,)))["output"]
    module(torch.from_numpy(VALUES))
    assert module.cached.grad_fn is not None
    with pytest.raises(RuntimeError):
        copy.deepcopy(module)
    copied = with_own_weights(with_shared_weights(module))
    assert torch.equal(call(copied, Example((VALUES,)))["output"], before)
    assert module.cached.grad_fn is not None
    assert copied.cached is not module.cached


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_in_another_type_is_compressed_from_its_float32_copy(dtype: torch.dtype) -> None:
    module = small_model("mlp").to(dtype)
    module.scale = torch.tensor(1.5, dtype=dtype)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    inputs = labelled("mlp", 4)[0][0].astype(np.float16)
    example = example_for(module, None, inputs, ())
    assert example.arrays["input"].dtype == np.float32
    copied, (sentence,) = as_compressed(module, example)
    assert {tensor.dtype for tensor in copied.state_dict().values()} == {torch.float32}
    assert copied.scale.dtype == torch.float32
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert sentence.startswith(f"the model is in {str(dtype).removeprefix('torch.')}: its float32 copy is compressed")
    assert "differ by at most" in sentence


def test_a_float32_module_with_other_buffers_stays_itself() -> None:
    module = small_model("mlp")
    module.register_buffer("steps", torch.zeros(3, dtype=torch.float64))
    assert as_compressed(module, Example(labelled("mlp", 2)[0])) == (module, ())


class Fixed(nn.Module):
    """Casts its inputs to the type it was written for."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.layer, self.change = nn.Linear(6, 3), change

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.change(self, values)


def test_a_copy_that_fails_says_so() -> None:
    module = Fixed(lambda self, values: self.layer(values.half())).half()
    with pytest.raises(ModelError, match="is in float16, and its float32 copy fails on the inputs"):
        as_compressed(module, Example((VALUES,)))


def test_a_copy_that_computes_something_else_is_refused() -> None:
    module = Fixed(lambda self, values: self.layer(values) * (2.0 if values.dtype is torch.float16 else 1.0)).half()
    with pytest.raises(ModelError, match="output 'output' of its float32 copy differs by"):
        as_compressed(module, Example((VALUES,)))


def test_a_model_that_does_not_run_in_its_type_here_is_not_called_equal() -> None:
    def forward(self: Any, values: torch.Tensor) -> torch.Tensor:
        if values.dtype is torch.float16:
            raise RuntimeError("not implemented for 'Half'")
        return self.layer(values)

    _, (sentence,) = as_compressed(Fixed(forward).half(), Example((VALUES,)))
    assert "could not be run beside it" in sentence
    assert "differ by" not in sentence


def test_a_module_on_a_gpu_is_compressed_from_a_copy_on_the_cpu() -> None:
    # no GPU is needed to see what is copied and said
    module = small_model("cnn")
    example = Example(labelled("cnn", 2)[0])
    copied, sentence = copies._compared_copy(module, example, torch.float32, ["cuda:0"])
    assert sentence == (
        "the model is on cuda:0: its copy on the CPU is compressed, and budgets compare with that; outputs of the two "
        "differ by at most 0.00% of an output's largest value"
    )
    assert copied.head.weight.device.type == "cpu"
    assert copied.head.weight is not module.head.weight
    with pytest.raises(ModelError, match=r"is in float16 on cuda:0, and its float32 copy on the CPU fails") as caught:
        copies._compared_copy(
            Fixed(lambda self, values: self.layer(values.half())), Example((VALUES,)), torch.float16, ["cuda:0"]
        )
    assert "without a fixed type or device" in str(caught.value)
