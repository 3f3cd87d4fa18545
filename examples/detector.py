"""A small SSDlite that finds drawn shapes, scored by mean average precision of all images together.

    python examples/detector.py [FOLDER [full]]

torchvision's detectors are compressed up to their boxes and class logits, so non-maximum suppression is part of the
score here, in numpy. Images hold one to four shapes: the targets are padded, with labels of -1. No loss is given: the
original alone teaches. With `full` there are more images and less than half the size is asked for, which takes
training.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autocompress import Aggregate, Result, Task, autocompress
from autocompress.data.vision import prepare_torchvision

# torchvision's compiled operators are not needed, and missing beside a CPU build of torch
prepare_torchvision()
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator  # noqa: E402 # after the preparation
from torchvision.models.detection.ssd import SSD  # noqa: E402
from torchvision.models.detection.ssdlite import SSDLiteHead  # noqa: E402
from torchvision.models.mobilenetv2 import InvertedResidual  # noqa: E402

# class 0 is the background
SHAPES = ("disc", "square", "triangle")
SIDE, MOST = 64, 4
FOUND, OVERLAP = 12, 0.5
Arrays = dict[str, NDArray[Any]]


def drawn(items: int, seed: int) -> tuple[NDArray[np.float32], Arrays]:
    """Images `(n, 3, 64, 64)` from 0 to 1; targets `boxes` `(n, 4, 4)` in pixels and `labels` `(n, 4)`.

    Images with fewer than four shapes have the label -1 in the places that are left.
    """
    random = np.random.default_rng(seed)
    images = 0.4 + random.uniform(-0.2, 0.2, (items, 3, 1, 1)) + random.normal(0, 0.08, (items, 3, SIDE, SIDE))
    boxes, labels = np.zeros((items, MOST, 4), np.float32), np.full((items, MOST), -1)
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5
    for item in range(items):
        # one shape in each quarter at most, so that none hides another
        quarters = random.permutation(MOST)[: random.integers(1, MOST + 1)]
        for place, quarter in enumerate(quarters):
            kind, half = random.integers(len(SHAPES)), random.uniform(5, 13)
            y, x = random.uniform(half, SIDE / 2 - half, 2) + SIDE / 2 * np.array(divmod(quarter, 2))
            down, right = row - y, abs(column - x)
            inside = {
                "disc": down**2 + right**2 < half**2,
                "square": (abs(down) < half) & (right < half),
                "triangle": (abs(down) < half) & (2 * right < down + half),
            }[SHAPES[kind]]
            colour = random.uniform(0, 1, (3, 1))
            images[item][:, inside] = colour + random.normal(0, 0.08, (3, inside.sum()))
            boxes[item, place], labels[item, place] = (x - half, y - half, x + half, y + half), kind + 1
    return images.clip(0, 1).astype(np.float32), {"boxes": boxes, "labels": labels}


class Narrow(nn.Module):
    """A mobilenet of seven blocks, with features at an eighth and a sixteenth of the side."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6())
        first = (InvertedResidual(width, width, 2, 3), InvertedResidual(width, width, 1, 3))
        wide = 2 * width
        self.fine = nn.Sequential(
            stem, *first, InvertedResidual(width, wide, 2, 4), *(InvertedResidual(wide, wide, 1, 4) for _ in range(2))
        )
        self.coarse = nn.Sequential(InvertedResidual(wide, wide, 2, 4), InvertedResidual(wide, wide, 1, 4))
        self.out_channels = [wide, wide]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features `(n, 48, 8, 8)` and `(n, 48, 4, 4)`."""
        fine = self.fine(images)
        return {"fine": fine, "coarse": self.coarse(fine)}


def network() -> nn.Module:
    """torchvision's SSD with the head of SSDlite."""
    backbone = Narrow()
    anchors = DefaultBoxGenerator([[], []], scales=[0.2, 0.32, 0.45])
    head = SSDLiteHead(backbone.out_channels, anchors.num_anchors_per_location(), len(SHAPES) + 1, nn.BatchNorm2d)
    middle = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return SSD(backbone, anchors, (SIDE, SIDE), len(SHAPES) + 1, head=head, **middle)


def model(task: Task, epochs: int = 12) -> nn.Module:
    """The detector, trained by torchvision's own loss."""
    torch.manual_seed(0)
    detector = network().train()
    (images,), targets = task.train.read(range(len(task.train)))
    known = [labels > 0 for labels in targets["labels"]]
    wanted = [
        {name: torch.from_numpy(array[item][known[item]]) for name, array in targets.items()}
        for item in range(len(images))
    ]
    steps = epochs * -(-len(images) // 32)
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            losses = detector(list(torch.from_numpy(images)[batch]), [wanted[item] for item in batch])
            sum(losses.values()).backward()
            optimizer.step()
            schedule.step()
    return detector.eval()


def overlaps(one: NDArray[Any], boxes: NDArray[Any]) -> NDArray[Any]:
    """Intersection over union of boxes `(..., 1, 4)` and `(..., m, 4)`, shape `(..., m)`."""
    low, high = np.maximum(one[..., :2], boxes[..., :2]), np.minimum(one[..., 2:], boxes[..., 2:])
    common = (high - low).clip(0).prod(-1)
    areas = [(of[..., 2:] - of[..., :2]).prod(-1) for of in (one, boxes)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def suppressed(boxes: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The best boxes of each image and class that overlap by no more than half.

    From boxes `(n, anchors, 4)` and scores `(n, classes, anchors)`, boxes `(n, classes, 12, 4)` and scores
    `(n, classes, 12)`, the best first; where fewer are left, scores are 0.
    """
    left, kept = scores.copy(), []
    for _ in range(FOUND):
        best = left.argmax(-1)[..., None]
        chosen = np.take_along_axis(boxes[:, None], best[..., None], 2)
        kept.append((chosen, np.take_along_axis(left, best, -1)))
        left[overlaps(chosen, boxes[:, None]) > OVERLAP] = 0
        np.put_along_axis(left, best, 0, -1)
    return np.concatenate([box for box, _ in kept], 2), np.concatenate([score for _, score in kept], -1)


def detections(outputs: Arrays, targets: Arrays) -> NDArray[np.float64]:
    """Number of shapes, then score and rightness of the 12 best boxes, image by class: `(n, 3 * 25)`.

    A box is right where it covers a shape of its class by half (intersection over union) that no better box has
    covered.
    """
    logits = outputs["logits"].astype(np.float64)
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    boxes, scores = suppressed(outputs["boxes"], chances[..., 1:].swapaxes(1, 2))
    of_class = targets["labels"][:, None] == np.arange(1, len(SHAPES) + 1)[:, None]
    free, right = of_class.copy(), np.zeros_like(scores)
    for place in range(FOUND):
        shared = overlaps(boxes[:, :, place : place + 1], targets["boxes"][:, None]) * free
        best = shared.argmax(-1)[..., None]
        hit = np.take_along_axis(shared, best, -1) >= OVERLAP
        right[..., place] = hit[..., 0]
        np.put_along_axis(free, best, np.take_along_axis(free, best, -1) & ~hit, -1)
    return np.concatenate([of_class.sum(-1)[..., None], scores, right], -1).reshape(len(logits), -1)


def mean_average_precision(records: NDArray[np.float64]) -> float:
    """Mean, over the classes that occur, of the area under precision (made non-increasing) by recall."""
    areas = []
    for of_class in records.reshape(len(records), len(SHAPES), -1).swapaxes(0, 1):
        shapes, scores, right = of_class[:, 0].sum(), of_class[:, 1 : FOUND + 1], of_class[:, FOUND + 1 :]
        if not shapes:
            continue
        hits = right.ravel()[np.argsort(-scores.ravel(), kind="stable")]
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        areas.append((best_from_here * hits).sum() / shapes)
    return float(np.mean(areas)) if areas else 0.0


def data(items: int = 600) -> Task:
    """As many test images as training images."""
    return Task(
        train=drawn(items, 0),
        test=drawn(items, 1),
        score=Aggregate("map50", detections, mean_average_precision, is_rate=True),
        name="drawn shapes",
    )


# int8 alone reaches the first; for the second blocks go, and training wins their work back
SIZES: dict[str, float | str] = {"small": "0.45x", "full": "0.25x"}


def main(folder: str = "runs/detector", size: str = "small") -> Result:
    """Less than half the size for at most four points of mean average precision, in full a quarter."""
    task = data(2400 if size == "full" else 600)
    budgets: dict[str, float | str] = {"size_mb": SIZES[size], "latency_ms": "2x", "max_accuracy_drop_pp": 4.0}
    limit = "15m" if size == "full" else None
    result = autocompress(model(task), "local", task, budgets=budgets, max_time=limit, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:3])
