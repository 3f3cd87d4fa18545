"""Traits of an output's values: range, sums of 1, length 1; the same whatever the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# how far sums, lengths and bounds may be off; float32 softmax over 50,000 classes is off by 1e-5
NEAR = 1e-3
# the same for what the user declares, who may have rounded
DECLARED_NEAR = 2e-2


@dataclass(frozen=True)
class Traits:
    """What holds for all values of an output that were seen.

    `sums`, `log_sums` and `lengths` are the axes along which values sum to 1, their exponentials do, or vectors have
    length 1; `sizes` are the shape with the batch in it, `count` the number of values, `low` and `high` the least and
    the greatest of them.
    """

    sizes: tuple[int, ...]
    count: int
    low: float
    high: float
    sums: tuple[int, ...]
    log_sums: tuple[int, ...]
    lengths: tuple[int, ...]

    @staticmethod
    def of(values: torch.Tensor, near: float = NEAR) -> Traits:
        """The traits of a batch of values."""
        values = values.detach().float()
        if not values.numel():
            return Traits(tuple(values.shape), 0, 0.0, 0.0, (), (), ())
        low, high = float(values.min()), float(values.max())
        axes = axes_of(values)

        def close(found: torch.Tensor, wanted: float) -> bool:
            return bool((found - wanted).abs().max() <= near)

        inside, below = low >= -near and high <= 1 + near, high <= near
        return Traits(
            tuple(values.shape),
            values.numel(),
            low,
            high,
            tuple(axis for axis in axes if inside and close(values.sum(axis), 1.0)),
            tuple(axis for axis in axes if below and close(values.logsumexp(axis), 0.0)),
            tuple(axis for axis in axes if close(values.norm(dim=axis), 1.0)),
        )

    def also(self, other: Traits) -> Traits:
        """The traits of both batches together."""
        return Traits(
            self.sizes,
            self.count + other.count,
            min(self.low, other.low),
            max(self.high, other.high),
            *(
                tuple(axis for axis in one if axis in another)
                for one, another in (
                    (self.sums, other.sums),
                    (self.log_sums, other.log_sums),
                    (self.lengths, other.lengths),
                )
            ),
        )

    @property
    def inside(self) -> bool:
        """True where all values lie between 0 and 1."""
        return self.low >= -NEAR and self.high <= 1 + NEAR

    @property
    def range(self) -> str:
        """The least and the greatest value, in words."""
        return f"values from {self.low:.3g} to {self.high:.3g}"


def axes_of(values: torch.Tensor) -> list[int]:
    """The axes that may be those of classes: the last, or the second, as torch has them."""
    last = values.ndim - 1
    found = (1,) if last == 1 else (2, 1) if last == 2 else (1, last)
    return [axis for axis in found if 0 < axis <= last and values.shape[axis] > 1]
