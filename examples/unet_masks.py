"""A U-Net that finds bright shapes in noisy images; its augmentation moves the masks along with the images.

    python examples/unet_masks.py [FOLDER [full]]

`augment(inputs, targets)` turns image and mask together. The score is each image's intersection over union, between 0
and 1. With `full` there are four times as many images and half the size is asked for, which takes training.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from autocompress import Result, Task, autocompress

SIDE = 32


def drawn(items: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images with a disc and a bar each under noise, and their masks; both `(items, 1, 32, 32)`."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    row, column, radius = (random.uniform(low, high, (items, 1, 1)) for low, high in ((6, 26), (6, 26), (3, 6)))
    disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    top, left, length = (random.integers(low, high, (items, 1, 1)) for low, high in ((2, 28), (2, 16), (8, 15)))
    bar = (abs(rows - top) < 2) & (columns >= left) & (columns < left + length)
    masks = (disc | bar)[:, None].astype(np.float32)
    # one side is brighter than the other, so that no threshold finds the shapes
    shade = (columns / SIDE)[None, None] * random.uniform(-1, 1, (items, 1, 1, 1))
    images = masks + shade + random.normal(0, 0.4, masks.shape)
    return images.astype(np.float32), masks


def turned(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Images and masks, mirrored and turned alike by chance."""
    both = torch.cat([images, masks], 1)
    both = torch.where(torch.rand(len(both), 1, 1, 1) < 0.5, both.flip(3), both)
    both = torch.where(torch.rand(len(both), 1, 1, 1) < 0.5, both.rot90(1, (2, 3)), both)
    return both[:, :1], both[:, 1:]


def overlap(outputs: Any, targets: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of the pixels above 0 with the mask, shape `(n,)`."""
    given, right = outputs[:, 0] > 0, targets[:, 0] > 0.5
    union = (given | right).sum((1, 2))
    return np.asarray((given & right).sum((1, 2)) / np.maximum(union, 1), dtype=np.float64)


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions with batch norm."""
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Ronneberger, Fischer and Brox, "U-Net" (2015), with two levels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down, self.inner, self.bottom = block(1, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.up, self.top = block(6 * width, 2 * width), block(3 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the mask, the shape of the images."""
        first = self.down(images)
        second = self.inner(functional.max_pool2d(first, 2))
        third = self.bottom(functional.max_pool2d(second, 2))
        second = self.up(torch.cat([functional.interpolate(third, scale_factor=2.0), second], 1))
        return self.head(self.top(torch.cat([functional.interpolate(second, scale_factor=2.0), first], 1)))


def data(items: int = 800) -> Task:
    """As many test items as training items."""
    return Task(
        train=drawn(items, 0),
        test=drawn(items, 1),
        score=overlap,
        score_bounds=(0, 1),
        loss=functional.binary_cross_entropy_with_logits,
        augment=turned,
        name="shapes",
    )


def model(task: Task, epochs: int = 6) -> nn.Module:
    """The U-Net, trained with the same augmentation."""
    torch.manual_seed(0)
    network = UNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    (images,), masks = task.train.read(range(len(task.train)))
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(32):
            seen, wanted = turned(torch.from_numpy(images)[batch], torch.from_numpy(masks)[batch])
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(network(seen), wanted).backward()
            optimizer.step()
    return network.eval()


# int8 alone reaches the first; for the second channels go, and training wins their work back
SIZES: dict[str, float | str] = {"small": "0.4x", "full": "0.2x"}


def main(folder: str = "runs/unet", size: str = "small") -> Result:
    """Two fifths of the size for at most three points of overlap, in full a fifth."""
    task = data(3200 if size == "full" else 800)
    budgets: dict[str, float | str] = {"size_mb": SIZES[size], "latency_ms": "2x", "max_accuracy_drop_pp": 3.0}
    limit = "15m" if size == "full" else None
    result = autocompress(model(task), "local", task, budgets=budgets, max_time=limit, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:3])
