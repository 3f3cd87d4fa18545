"""Inputs made from batch-norm statistics, to take quantization ranges from where there are no data.

Batch norm keeps the mean and variance that each channel had on the training data. Inputs under which all channels have
them again give activations of nearly the right ranges (Cai et al., "ZeroQ: A novel zero shot quantization framework",
CVPR 2020, eq. 3; the idea of ranges without data: Nagel et al., "Data-free quantization through weight equalization
and bias correction", ICCV 2019). They look like nothing, so that accuracy cannot be measured on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autocompress.core.runtime import Example
from autocompress.core.source import Array
from autocompress.data.module import inference_mode_of, returned
from autocompress.errors import TechniqueError
from autocompress.system.locks import working

NAME = "synthetic"
SEED = 0
# items, the most steps, and the fewest that are enough; ImageNet-sized networks get fewer items
ITEMS, LEAST_ITEMS = 64, 16
MOST_STEPS, LEAST_STEPS = 100, 50
# floating-point operations to spend: about a minute on two cores
MOST_WORK = 4e12
# operations of a step per MAC and item: a forward and a backward pass through the activations
WORK_PER_MAC = 4
# Adam's first rate, in deviations of the inputs that it begins with
RATE = 0.1
# means and deviations to begin with: standardized inputs, pixels from 0 to 1, pixels from 0 to 255
STARTS = ((0.0, 1.0), (0.5, 0.25), (128.0, 64.0))


def why_no_inputs(module: nn.Module | None, example: Example) -> str:
    """The reason why no inputs can be made for a model, empty where they can."""
    if module is None:
        return "inputs can be made for a PyTorch module only"
    whole_numbers = [name for name, array in example.arrays.items() if array.dtype.kind != "f"]
    if whole_numbers:
        return f"inputs cannot be made, since {whole_numbers[0]} is not floating"
    return "" if any(True for _ in _norms(module)) else "inputs cannot be made, since no layer keeps statistics"


def items_and_steps(macs: int) -> tuple[int, int]:
    """How many inputs are made in how many steps for a network of so many MACs; by work, not by a clock."""
    items = ITEMS
    while items > LEAST_ITEMS and MOST_WORK / (WORK_PER_MAC * max(1, macs) * items) < LEAST_STEPS:
        items //= 2
    steps = int(MOST_WORK / (WORK_PER_MAC * max(1, macs) * items))
    return items, min(MOST_STEPS, max(LEAST_STEPS, steps))


def synthetic_inputs(
    module: nn.Module,
    example: Example,
    items: int = ITEMS,
    steps: int = MOST_STEPS,
    on_step: Callable[[int, float], None] = lambda step, distance: None,
) -> dict[str, Array]:
    """Inputs by name, in the example's shapes, that give each batch norm the statistics that it keeps.

    They begin as normal numbers of the mean and deviation among `STARTS` that come closest at once, since nobody says
    whether pixels go to 1 or to 255. Adam changes them, its rate falling to 0 along a cosine. `on_step` is called with
    the step and the distance: the squared difference of means in standard deviations, plus the squared logarithm of the
    ratio of deviations, averaged over a layer's channels and summed over layers. The module's weights stay as they are.

    Raises:
        TechniqueError: when the model fails on such inputs, or computes none of its batch norms by them.
    """
    generator = torch.Generator().manual_seed(SEED)
    noise = {name: _noise((items, *array.shape[1:]), generator) for name, array in example.arrays.items()}
    with inference_mode_of(module), _distances(module) as distances:

        def distance_of(mean: float, deviation: float) -> torch.Tensor:
            distances.clear()
            _call(module, {name: mean + deviation * tensor for name, tensor in noise.items()}, example)
            return torch.stack([torch.zeros(()), *distances]).sum()

        with working():
            tried = {start: distance_of(*start).item() for start in STARTS}
        mean, deviation = min(tried, key=lambda start: tried[start])
        optimizer = torch.optim.Adam([tensor.requires_grad_() for tensor in noise.values()], lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            with working(), torch.enable_grad():
                distance = distance_of(mean, deviation)
                if not distance.requires_grad:
                    raise TechniqueError("no inputs can be made: no batch norm depends on them.", where=NAME)
                gradients = torch.autograd.grad(distance, list(noise.values()), allow_unused=True)
                for tensor, gradient in zip(noise.values(), gradients, strict=True):
                    tensor.grad = gradient
                optimizer.step()
                schedule.step()
            on_step(step, distance.item())
    arrays = {name: (mean + deviation * tensor.detach()).contiguous().numpy() for name, tensor in noise.items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise TechniqueError("no inputs can be made: they became infinite.", where=NAME)
    return arrays


def _noise(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=generator)
    # convolutions are about twice as fast with channels last
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def _call(module: nn.Module, tensors: Mapping[str, torch.Tensor], example: Example) -> None:
    try:
        returned(module, tensors, example)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        first = str(error).partition("\n")[0][:200]
        raise TechniqueError(f"no inputs can be made: the model fails on them ({first}).", where=NAME) from error


def _norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """The batch norms that keep statistics."""
    return (part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None)


@contextmanager
def _distances(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """A list that each call of the module fills with a distance for each batch norm that it computes."""
    found: list[torch.Tensor] = []

    def note(norm: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        every = [axis for axis in range(given[0].dim()) if axis != 1]
        variance, mean = torch.var_mean(given[0], every, correction=0)
        deviation = (norm.running_var + norm.eps).sqrt()
        means = ((mean - norm.running_mean) / deviation).square().mean()
        # a logarithm, since a share would call a channel that died nearer than one of twice the deviation
        found.append(means + ((variance + norm.eps).sqrt() / deviation).log().square().mean())

    hooks = [norm.register_forward_pre_hook(note) for norm in _norms(module)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
