"""Real networks and data of AUTOCOMPRESS_DATA (default ../shared/data), read where they lie."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from autocompress import Task

DATA = Path(os.environ.get("AUTOCOMPRESS_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
CHECKPOINTS = {20: (3, "resnet20-12fca82f.th"), 56: (9, "resnet56-4bfd9763.th")}


def require_data(folder: str) -> Path:
    """The folder of one data set, or the end of the script with the reason."""
    path = DATA / folder
    if not path.is_dir():
        sys.exit(f"{path} is missing: set AUTOCOMPRESS_DATA to the folder of the benchmark data.")
    return path


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; across widths the shortcut is strided and zero-padded, without parameters."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.pad = (width_out - width_in) // 2
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """He et al. 2016, section 4.2, with option A shortcuts, as in akamaster/pytorch_resnet_cifar10."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks)
        self.layer2 = self._stage(16, 32, 2, blocks)
        self.layer3 = self._stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(width_in: int, width_out: int, stride: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(width_in, width_out, stride)
        return nn.Sequential(first, *(BasicBlock(width_out, width_out, 1) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def cifar_resnet(depth: int) -> CifarResNet:
    """ResNet-20 or ResNet-56 with its published weights."""
    blocks, name = CHECKPOINTS[depth]
    path = require_data("cifar10_resnet") / name
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = CifarResNet(blocks)
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model.eval()


def resnet20() -> CifarResNet:
    return cifar_resnet(20)


def resnet56() -> CifarResNet:
    return cifar_resnet(56)


def _tiles(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load(path) as file:
        sheets = []
        for key in sorted(name for name in file.files if name.startswith("sheet")):
            sheet = np.asarray(Image.open(io.BytesIO(file[key].tobytes())).convert("RGB"))
            n = sheet.shape[0] // 32 * 100
            tiles = sheet.reshape(n // 100, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4)
            sheets.append(tiles.reshape(n, 32, 32, 3))
        return np.concatenate(sheets), file["labels"].astype(np.int64)


def normalize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (n, h, w, 3) to normalised float32 (n, 3, h, w)."""
    return np.ascontiguousarray((((images / np.float32(255)) - MEAN) / STD).transpose(0, 3, 1, 2), dtype=np.float32)


def cifar10() -> Task:
    """All 10,000 test images and 15,000 training images."""
    from autocompress.core.source import ArraySource

    folder = require_data("cifar10")
    parts = {}
    for part, name in (("test", "cifar10_test_webp.npz"), ("train", "cifar10_train15k_webp.npz")):
        images, labels = _tiles(folder / name)
        parts[part] = ArraySource((images,), labels, transform=normalize)
    return Task(test=parts["test"], train=parts["train"], name="cifar10")
