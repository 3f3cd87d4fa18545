"""Images as models take them, made batch by batch from the bytes in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autocompress.core.source import Array


@dataclass(frozen=True)
class Normalize:
    """Makes float32 images of uint8 images `(n, c, h, w)`; every other array passes as it is.

    Args:
        mean, std: per channel, or one for all, of values between 0 and 1: `(value / 255 - mean) / std`.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, batch: Array) -> Array:
        """The batch, float32 when it held images."""
        if not is_image(batch):
            return batch
        images = batch.astype(np.float32)
        images /= np.float32(255)
        images -= _per_channel(self.mean)
        images /= _per_channel(self.std)
        return images


def is_image(array: Array) -> bool:
    """True for what `Normalize` changes."""
    return array.dtype == np.uint8 and array.ndim == 4


def _per_channel(values: tuple[float, ...]) -> Array:
    return np.array(values, dtype=np.float32)[:, None, None]
