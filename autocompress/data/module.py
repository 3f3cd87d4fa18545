"""Call a user's module: inputs by position or name, outputs by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.data.named_outputs import named_outputs
from autocompress.errors import ModelError


class FlatModule(nn.Module):
    """Wraps a module to take tensors and return a tuple of tensors, in the order of its named outputs."""

    def __init__(self, module: nn.Module, example: Example) -> None:
        super().__init__()
        self.module = module
        self.example = example

    def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The module's outputs, flattened."""
        inputs = dict(zip(self.example.arrays, arrays, strict=True))
        return tuple(named_outputs(returned(self.module, inputs, self.example), self.example).values())


def returned(module: nn.Module, inputs: Mapping[str, torch.Tensor], example: Example) -> Any:
    """What a module returns for inputs, by name or in order as the example's are, in its present mode."""
    return module(**inputs) if example.by_name else module(*inputs.values())


@contextmanager
def inference_mode_of(module: nn.Module) -> Iterator[None]:
    """Run the block with the module in evaluation mode and without gradients, and restore its mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def unfused_encoder_layers() -> Iterator[None]:
    """Switch torch's fused encoder path off in the block; it would hide inner layers from hooks."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def call(module: nn.Module, example: Example, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Outputs of the module for example inputs, in evaluation mode.

    Floating inputs are cast to `dtype` where that is given.

    Raises:
        ModelError: when the model fails on them, or gives values that are not finite.
    """
    place = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    tensors = {
        name: tensor.to(place, dtype if tensor.is_floating_point() else None)
        for name, tensor in example.tensors().items()
    }
    try:
        with inference_mode_of(module):
            outputs = returned(module, tensors, example)
    except Exception as error:
        shapes = ", ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in tensors.items())
        raise ModelError(
            f"fails on the inputs ({shapes}): {type(error).__name__}: {first_line(error)}",
            where="model",
            hint="Check that data and input spec are what the model takes.",
        ) from error
    named = named_outputs(outputs, example)
    for name, tensor in named.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"gives output {name!r} that is not finite (NaN or infinity).",
                where="model",
                hint=_advice_on_values(module),
            )
    return named


def call_by(module: nn.Module, inputs: Mapping[str, torch.Tensor], example: Example) -> dict[str, torch.Tensor]:
    """Outputs of a module for inputs like the example's, with its present mode and gradient settings."""
    return named_outputs(returned(module, inputs, example), example)


def _advice_on_values(module: nn.Module) -> str:
    bad = [name for name, tensor in module.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        return f"Its weights {bad[0]} are not finite."
    return "Check its weights and the inputs, or choose other outputs (outputs=, --output)."


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
