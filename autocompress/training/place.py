"""The device that trains, and how tensors and modules lie and compute there."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from autocompress.devices.meter.describe import describe


def training_place() -> torch.device:
    """The device that trains: a GPU where torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_trained(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    """A tensor at `place`; images with their channels last in memory."""
    tensor = tensor.to(place)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def in_float32(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs with the floating ones in float32."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in outputs.items()}


def autocast(place: torch.device) -> torch.autocast:
    """Computes in bfloat16 inside the block, where the device is fast in it."""
    bfloat16 = trains_in_bfloat16() if place.type == "cpu" else torch.cuda.is_bf16_supported()
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=bfloat16)


@functools.cache
def trains_in_bfloat16() -> bool:
    """True where the CPU has bfloat16 products; elsewhere autocast would be slower than float32."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "bf16" in describe()["features"]


@contextmanager
def training_layout(module: nn.Module) -> Iterator[None]:
    """Use the channels_last layout inside the block, for modules with image weights."""
    _to_layout(module, torch.channels_last)
    try:
        yield
    finally:
        _to_layout(module, torch.contiguous_format)


def _to_layout(module: nn.Module, layout: torch.memory_format) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)
