"""Blocks of random structure for networks on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Pick = Callable[[Sequence[Any]], Any]


class Add(nn.Module):
    """A body and a shortcut, added."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Beside(nn.Module):
    """Bodies side by side, concatenated, with the input where `keeps`."""

    def __init__(self, bodies: Sequence[nn.Module], *, keeps: bool) -> None:
        super().__init__()
        self.bodies, self.keeps = nn.ModuleList(bodies), keeps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([body(x) for body in self.bodies] + ([x] if self.keeps else []), 1)


class Padded(nn.Module):
    """The shortcut of the CIFAR ResNets: strided, padded with zero channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.pad = after - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.pad // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, low, self.pad - low))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Gated(nn.Module):
    """Twice the channels, of which one half opens and closes the other."""

    def __init__(self, before: int, after: int, *, splits: bool) -> None:
        super().__init__()
        self.conv, self.splits = nn.Conv2d(before, 2 * after, 1), splits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        left, right = torch.split(y, y.shape[1] // 2, 1) if self.splits else y.chunk(2, 1)
        return left * torch.sigmoid(right)


class Shuffled(nn.Module):
    """A grouped convolution with its channels shuffled (ShuffleNet)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.conv, self.groups = nn.Conv2d(width, width, 1, groups=groups), groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        n, c, h, w = y.shape
        return y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Twice(nn.Module):
    """The same layer, two times in a row."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


def norm_of(pick: Pick, width: int) -> nn.Module:
    kind = pick(["batch", "batch", "batch", "plain batch", "group", "instance", "none"])
    if kind == "batch":
        norm = nn.BatchNorm2d(width)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
        return norm
    if kind == "plain batch":
        return nn.BatchNorm2d(width, affine=False)
    if kind == "group":
        return nn.GroupNorm(pick([1, 2, 4]), width)
    return nn.InstanceNorm2d(width, affine=True) if kind == "instance" else nn.Identity()


def conv(pick: Pick, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    activation = pick([nn.ReLU, nn.SiLU, nn.PReLU, nn.Hardswish])()
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=pick([True, False]))
    return nn.Sequential(layer, norm_of(pick, after), activation)


def plain(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return conv(pick, before, after, pick([1, 3, 5]), pick([1, 2]))


def residual(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    body = nn.Sequential(conv(pick, before, inner, 3), conv(pick, inner, after, pick([1, 3])))
    return Add(body, None if before == after else nn.Conv2d(before, after, 1))


def stage(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    blocks = [Add(nn.Sequential(conv(pick, after, inner, 3), conv(pick, inner, after, 3))) for _ in range(3)]
    return nn.Sequential(conv(pick, before, after, 3, 2), *blocks)


def concat(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    side = Beside([conv(pick, before, inner, 1), conv(pick, before, 8, 3)], keeps=pick([True, False]))
    return nn.Sequential(side, conv(pick, inner + 8 + (before if side.keeps else 0), after, 1))


def depthwise(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return nn.Sequential(conv(pick, before, before, 3, groups=before), conv(pick, before, after, 1))


def inverted(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    parts = [conv(pick, before, inner, 1), conv(pick, inner, inner, 3, groups=inner), Squeeze(inner, 4)]
    body = nn.Sequential(*parts, nn.Conv2d(inner, before, 1), nn.BatchNorm2d(before))
    return nn.Sequential(Add(body), conv(pick, before, after, 1))


def grouped(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return conv(pick, before, after, 3, groups=pick([2, 4, 8]))


def padded(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    if after < before:
        return plain(pick, before, after, inner)
    body = nn.Sequential(conv(pick, before, inner, 3, 2), conv(pick, inner, after, 3))
    return Add(body, Padded(before, after))


def gated(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return Gated(before, after, splits=pick([True, False]))


def shuffled(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return nn.Sequential(Shuffled(before, pick([2, 4])), conv(pick, before, after, 1))


def twice(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return nn.Sequential(Twice(nn.Conv2d(before, before, 3, padding=1)), conv(pick, before, after, 1))


def transposed(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(before, after, 2, 2, groups=pick([1, 2])), nn.ReLU(), nn.MaxPool2d(2))


def squeeze(pick: Pick, before: int, after: int, inner: int) -> nn.Module:
    return nn.Sequential(conv(pick, before, after, 3), Squeeze(after, inner))


BLOCKS = (
    plain, residual, residual, stage, concat, depthwise, inverted, grouped, padded, gated, shuffled, twice, transposed,
    squeeze,
)  # fmt: skip


def image_block(pick: Pick, before: int, after: int) -> nn.Module:
    """One block from `before` to `after` channels, both multiples of 8."""
    block = pick(BLOCKS)
    module: nn.Module = block(pick, before, after, pick([8, 12, 16, 24]))
    return module
