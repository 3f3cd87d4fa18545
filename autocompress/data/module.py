"""Call a user's module: inputs by position or name, outputs by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.user_code import definition_of
from autocompress.data.named_outputs import named_outputs
from autocompress.data.user_line import user_line
from autocompress.errors import ModelError, said_by


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
    """Run the block in evaluation mode and without gradients; restore the module's mode and buffers."""
    training = [part for part in module.modules() if part.training]
    buffers = [(part, name, buffer) for part in module.modules() for name, buffer in part._buffers.items()]
    kept = [None if buffer is None else buffer.detach().clone() for _, _, buffer in buffers]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
        for (part, name, buffer), value in zip(buffers, kept, strict=True):
            # forward() may assign another tensor, or change this one in place
            part._buffers[name] = buffer
            if buffer is not None and value is not None and not torch.equal(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)


def place_of(module: nn.Module) -> torch.device:
    """The device of the module's first weight or buffer; the CPU where it has none."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def changing_buffers(module: nn.Module, example: Example) -> list[str]:
    """Names of the buffers that a call in evaluation mode changes; it changes them in the block alone.

    Raises:
        ModelError: when the model fails on the example.
    """
    before = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    if not before:
        return []
    with inference_mode_of(module), _explained(module, tensors := _tensors_of(module, example), example):
        returned(module, tensors, example)
        return [name for name, buffer in module.named_buffers() if name in before and not _alike(buffer, before[name])]


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one, other) or (
        # NaN is not equal to itself
        one.is_floating_point() and one.shape == other.shape and torch.allclose(one, other, 0, 0, equal_nan=True)
    )


def _tensors_of(module: nn.Module, example: Example, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The example's inputs where the module is; floating ones as `dtype` where that is given."""
    place = place_of(module)
    return {
        name: tensor.to(place, dtype if tensor.is_floating_point() else None)
        for name, tensor in example.tensors().items()
    }


@contextmanager
def _explained(module: nn.Module, tensors: Mapping[str, torch.Tensor], example: Example) -> Iterator[None]:
    """Turn whatever a module raises in the block into a ModelError that states its inputs."""
    try:
        yield
    except Exception as error:
        shapes = ", ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in tensors.items())
        line = user_line(error)
        if not line and isinstance(error, TypeError) and (defined := definition_of(module)) is not None:
            # forward() did not run: it takes other arguments
            line = f"{defined.place} ({defined.text})"
        raise ModelError(
            f"fails on the inputs ({shapes}): {type(error).__name__}: {first_line(error)}",
            where=", ".join(filter(None, ("model", line))),
            hint=_what_it_takes(module, tensors, example) or "Check that data and input spec are what the model takes.",
        ) from error


def _what_it_takes(module: nn.Module, tensors: Mapping[str, torch.Tensor], example: Example) -> str:
    """What to do about an input that a module fails on, found by trying; empty where nothing helps."""
    if len(tensors) != 1:
        return ""
    (name, tensor), *_ = tensors.items()
    for change, advice in CHANGES:
        try:
            changed = change(tensor)
            if changed is None:
                continue
            with inference_mode_of(module):
                returned(module, {name: changed}, example)
        except Exception:  # noqa: BLE001 - it does not help
            continue
        return f"It takes {tuple(changed.shape)} {changed.dtype}: {advice}."
    return ""


# changes of an input with a batch axis that people forget, and what to do; None where a change does not apply
CHANGES: tuple[tuple[Callable[[torch.Tensor], torch.Tensor | None], str], ...] = (
    (
        lambda x: x.permute(0, 3, 1, 2) if x.ndim == 4 and x.is_floating_point() else None,
        "give images as (n, c, h, w), for example x.transpose(0, 3, 1, 2)",
    ),
    (lambda x: None if x.is_floating_point() else x.float(), "give float32, scaled as in training"),
    (
        lambda x: None if x.is_floating_point() or x.ndim != 4 else x.float().permute(0, 3, 1, 2),
        "give float32, scaled as in training, as (n, c, h, w)",
    ),
    (lambda x: x.long() if x.is_floating_point() and bool((x == x.round()).all()) else None, "give whole numbers"),
    (lambda x: x.unsqueeze(1) if x.ndim == 3 else None, "give images their axis of channels, for example x[:, None]"),
    (lambda x: x.unsqueeze(0), "give a batch axis, for example x[None]"),
)


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
        ModelError: when the model fails on them, or gives complex numbers or values that are not finite.
    """
    tensors = _tensors_of(module, example, dtype)
    with _explained(module, tensors, example), inference_mode_of(module):
        outputs = returned(module, tensors, example)
    named = named_outputs(outputs, example)
    for name, tensor in named.items():
        if tensor.is_complex():
            raise ModelError(
                f"gives output {name!r} in complex numbers, which an ONNX file cannot give.",
                where="model",
                hint="Return torch.view_as_real() of it, or choose other outputs (outputs=, --output).",
            )
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
    """The first line of an error's text, at most 300 characters; its type where it has none."""
    return said_by(error) or type(error).__name__
