"""Trains networks of depthwise convolutions on CIFAR-10, the hard cases of int8, and keeps their weights.

    python benchmarks/depthwise_networks.py [--only mobilenet_v2] [--epochs 25] [--threads 2]

The patterns are torchvision's: inverted residuals with ReLU6 (mobilenet_v2), with hard swish and squeeze-excitation
(mobilenet_v3), with SiLU and squeeze-excitation (efficientnet); strides are those of 32 x 32 images. They learn from
the 15,000 training images and from the answers of ResNet-20 to them. Weights go to runs/networks/NAME.pt, where
`depthwise_network` finds them, and a line with date, machine and accuracy to results/depthwise_networks.json. About
half an hour each on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cifar10 import stamp
from networks import cifar10, cifar_resnet
from torch import nn
from torch.nn import functional

from autocompress.core.source import whole
from autocompress.data.augmentation import crop_flip
from autocompress.data.vision import import_torchvision

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "runs" / "networks"
BATCH, RATE, TEMPERATURE = 128, 0.1, 4.0


def mobilenet_v2() -> nn.Module:
    models = import_torchvision().models
    setting = [[1, 16, 1, 1], [4, 24, 2, 2], [6, 32, 2, 2], [6, 64, 3, 1], [6, 96, 2, 2]]
    network = models.mobilenetv2.MobileNetV2(num_classes=10, inverted_residual_setting=setting)
    # 1280 channels are for a thousand classes
    network.features[-1] = nn.Sequential(nn.Conv2d(96, 320, 1, bias=False), nn.BatchNorm2d(320), nn.ReLU6())
    network.features[0][0].stride = (1, 1)
    network.classifier = nn.Linear(320, 10)
    return network


def mobilenet_v3() -> nn.Module:
    v3 = import_torchvision().models.mobilenetv3
    block = partial(v3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    setting = [
        block(16, 3, 16, 16, True, "RE", stride=1),
        block(16, 3, 72, 24, False, "RE", stride=2),
        block(24, 3, 88, 24, False, "RE", stride=1),
        block(24, 5, 96, 40, True, "HS", stride=2),
        block(40, 5, 240, 40, True, "HS", stride=1),
        block(40, 5, 120, 48, True, "HS", stride=1),
        block(48, 5, 288, 96, True, "HS", stride=2),
        block(96, 5, 576, 96, True, "HS", stride=1),
    ]
    network = v3.MobileNetV3(setting, last_channel=256, num_classes=10, dropout=0.0)
    network.features[0][0].stride = (1, 1)
    return network


def efficientnet() -> nn.Module:
    models = import_torchvision().models.efficientnet
    block = partial(models.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    setting = [
        block(1, 3, 1, 16, 16, 1),
        block(4, 3, 2, 16, 24, 2),
        block(6, 5, 2, 24, 40, 2),
        block(6, 3, 1, 40, 64, 2),
        block(6, 5, 2, 64, 96, 1),
    ]
    network = models.EfficientNet(setting, dropout=0.0, stochastic_depth_prob=0.0, num_classes=10, last_channel=320)
    network.features[0][0].stride = (1, 1)
    return network


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
}


def depthwise_network(name: str) -> nn.Module:
    """The trained network of that name."""
    network = NETWORKS[name]()
    network.load_state_dict(torch.load(WEIGHTS / f"{name}.pt", weights_only=True))
    return network.eval()


def trained(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    """Plain training with a teacher: SGD, a rate that ends at 0, crops and flips."""
    # torch's types know no memory format without a type
    teacher = cifar_resnet(20).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=4e-5, nesterov=True)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps, pct_start=0.1)
    start = time.monotonic()
    for step in range(steps):
        items = torch.randint(0, len(images), (BATCH,))
        batch = crop_flip(images[items]).contiguous(memory_format=torch.channels_last)
        # torch's depthwise convolutions are faster in float32 than in bfloat16
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            wanted = teacher(batch)
        found = network(batch)
        soft = functional.kl_div(
            functional.log_softmax(found / TEMPERATURE, 1),
            functional.softmax(wanted.float() / TEMPERATURE, 1),
            reduction="batchmean",
        )
        loss = 0.8 * TEMPERATURE**2 * soft + 0.2 * functional.cross_entropy(found, labels[items])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            spent = time.monotonic() - start
            print(f"step {step + 1} of {steps}, loss {loss.item():.3f}, {spent:.0f} s", flush=True)
    return network.eval()


def accuracy(network: nn.Module) -> float:
    right, count = 0, 0
    task = cifar10()
    for inputs, targets in whole("test", task.test).batches(500):
        with torch.inference_mode():
            right += int((network(torch.from_numpy(inputs[0])).argmax(1).numpy() == targets).sum())
        count += len(targets)
    return 100 * right / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=sorted(NETWORKS))
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    read = list(cifar10().calibration.batches(512))
    images = torch.from_numpy(np.concatenate([inputs[0] for inputs, _ in read]))
    labels = torch.from_numpy(np.concatenate([targets for _, targets in read]))
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    results = HERE / "results" / "depthwise_networks.json"
    for name in given.only or NETWORKS:
        torch.manual_seed(0)
        start = time.monotonic()
        network = trained(NETWORKS[name](), images, labels, given.epochs)
        torch.save(network.state_dict(), WEIGHTS / f"{name}.pt")
        known = json.loads(results.read_text()) if results.exists() else {}
        parameters = sum(one.numel() for one in network.parameters())
        known[name] = {
            **stamp(),
            "accuracy": accuracy(network),
            "parameters": parameters,
            "epochs": given.epochs,
            "seconds": time.monotonic() - start,
        }
        results.write_text(json.dumps(known, indent=1) + "\n")
        print(name, known[name], flush=True)


if __name__ == "__main__":
    main()
