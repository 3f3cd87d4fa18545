"""Normalisation of uint8 images to what models take, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autocompress.core.source import Array


@dataclass(frozen=True)
class Normalize:
    """Turns uint8 images `(n, c, h, w)` into normalised float32; other arrays are returned unchanged.

    Args:
        mean, std: per channel, or one for all, of values between 0 and 1: `(value / 255 - mean) / std`.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, batch: Array) -> Array:
        """The batch, normalised to float32 where it holds images."""
        if not is_image(batch):
            return batch
        images = batch.astype(np.float32)
        images /= np.float32(255)
        images -= _per_channel(self.mean)
        images /= _per_channel(self.std)
        return images


def is_image(array: Array) -> bool:
    """True for arrays that `Normalize` changes."""
    return array.dtype == np.uint8 and array.ndim == 4


def _per_channel(values: tuple[float, ...]) -> Array:
    return np.array(values, dtype=np.float32)[:, None, None]
