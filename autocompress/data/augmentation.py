"""Random augmentation of image batches for training: vectorised, on tensors `(n, c, h, w)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

PADDING_SHARE = 8  # a side is padded by an eighth of it: the usual 4 pixels at 32


def flip(images: Tensor) -> Tensor:
    """Mirror each image left to right with probability one half; `(n, c, h, w)` in and out.

    Draws from torch's global generator on the CPU, so that every device gets the same changes.
    """
    chosen = torch.rand(len(images)) < 0.5
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def crop(images: Tensor) -> Tensor:
    """Shift each image at random by up to an eighth of its sides, filling with zeros.

    Takes and gives `(n, c, h, w)`. This equals a random crop of the old size after padding with zeros (He et al. 2015,
    section 4.2).
    """
    n, channels, height, width = images.shape
    top, left = max(1, height // PADDING_SHARE), max(1, width // PADDING_SHARE)
    rows = torch.randint(0, 2 * top + 1, (n, 1)) + torch.arange(height)
    columns = torch.randint(0, 2 * left + 1, (n, 1)) + torch.arange(width)
    item, channel = torch.arange(n), torch.arange(channels)
    index = (
        item[:, None, None, None],
        channel[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    )
    return pad(images, (left, left, top, top))[tuple(part.to(images.device) for part in index)]


def crop_flip(images: Tensor) -> Tensor:
    """Apply `crop`, then `flip`."""
    return flip(crop(images))


AUGMENTATIONS: Mapping[str, Callable[[Tensor], Tensor] | None] = {
    "none": None,
    "flip": flip,
    "crop-flip": crop_flip,
}
