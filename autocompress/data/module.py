"""Call a user's module: inputs by position or name, outputs as a flat tuple."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.errors import ModelError


class FlatModule(nn.Module):
    """Wraps a module to take tensors and return a tuple of tensors in the order of `output_names`."""

    def __init__(self, module: nn.Module, input_names: tuple[str, ...], *, by_name: bool) -> None:
        super().__init__()
        self.module = module
        self.input_names = input_names
        self.by_name = by_name

    def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The module's outputs, flattened."""
        if self.by_name:
            outputs = self.module(**dict(zip(self.input_names, arrays, strict=True)))
        else:
            outputs = self.module(*arrays)
        return tuple(flatten_outputs(outputs).values())


def flatten_outputs(outputs: Any) -> dict[str, torch.Tensor]:
    """A module's output tensors, by name.

    The output may be a tensor, a tuple, a dict, or an object with `logits` as Hugging Face models give.

    Raises:
        ModelError: when there is no tensor among them.
    """
    if isinstance(outputs, torch.Tensor):
        return {"output": outputs}
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, torch.Tensor):
        return {"logits": logits}
    if isinstance(outputs, Mapping):
        found = {str(name): value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    elif isinstance(outputs, tuple | list):
        tensors = [value for value in outputs if isinstance(value, torch.Tensor)]
        found = {"output" if i == 0 else f"output_{i}": value for i, value in enumerate(tensors)}
    else:
        found = {}
    if not found:
        raise ModelError(
            f"returns a {type(outputs).__name__} without tensors.",
            where="model",
            hint="Return a tensor, a tuple or dict of tensors, or an object with `.logits`.",
        )
    return found


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


def call(module: nn.Module, example: Example) -> dict[str, torch.Tensor]:
    """Outputs of the module for example inputs, in evaluation mode.

    Raises:
        ModelError: when the model fails on them, or gives values that are not finite.
    """
    place = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    tensors = {name: tensor.to(place) for name, tensor in example.tensors().items()}
    try:
        with inference_mode_of(module):
            outputs = module(**tensors) if example.by_name else module(*tensors.values())
    except Exception as error:
        shapes = ", ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in tensors.items())
        raise ModelError(
            f"fails on the inputs ({shapes}): {type(error).__name__}: {first_line(error)}",
            where="model",
            hint="Check that data and input spec are what the model takes.",
        ) from error
    flat = flatten_outputs(outputs)
    for name, tensor in flat.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"gives output {name!r} that is not finite (NaN or infinity).",
                where="model",
                hint=_advice_on_values(module),
            )
    return flat


def call_by(module: nn.Module, inputs: Mapping[str, torch.Tensor], *, by_name: bool) -> torch.Tensor:
    """The first output of a module, called in its present mode and with its present gradient settings."""
    outputs = module(**inputs) if by_name else module(*inputs.values())
    return next(iter(flatten_outputs(outputs).values()))


def _advice_on_values(module: nn.Module) -> str:
    bad = [name for name, tensor in module.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    return f"Its weights {bad[0]} are not finite." if bad else "Check its weights and the inputs."


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
