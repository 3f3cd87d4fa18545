"""A small convolutional network for scikit-learn's digits: trained in seconds, 5 million MACs an image.

`model()` is what `--model examples/digits.py:model` calls; it loads `runs/digits_cnn.pt`, or trains and saves
it there first. `python examples/digits.py` does the same.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocompress.core.source import Source
from autocompress.data.data_spec import load_data

WEIGHTS = Path("runs/digits_cnn.pt")
EPOCHS = 5
BATCH = 50
SEED = 0


def model() -> nn.Module:
    """The trained network: `(n, 1, 8, 8)` float32 between 0 and 1 in, 10 logits out."""
    if WEIGHTS.exists():
        network = _network()
        network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
        return network.eval()
    print("Training a small CNN on scikit-learn's digits, once.", flush=True)
    start = time.perf_counter()
    threads = torch.get_num_threads()
    # for a network this small, handing work from thread to thread costs more than the work
    torch.set_num_threads(1)
    network = _train()
    torch.set_num_threads(threads)
    _save(network)
    seconds = time.perf_counter() - start
    print(f"Trained {WEIGHTS} in {seconds:.0f} s: {_test_accuracy(network):.1%} of the test images right.")
    return network


def _network() -> nn.Module:
    return nn.Sequential(
        *_block(1, 24),
        *_block(24, 48),
        *_block(48, 96),
        nn.MaxPool2d(2),
        *_block(96, 96),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _train() -> nn.Module:
    """The network, trained the same way every time (for one number of threads)."""
    images, labels = _tensors(load_data("digits").train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _network().train()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
        steps = EPOCHS * (len(images) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        for _ in range(EPOCHS):
            order = torch.randperm(len(images))
            for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
                loss = nn.functional.cross_entropy(network(images[batch]), labels[batch], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def _test_accuracy(network: nn.Module) -> float:
    images, labels = _tensors(load_data("digits").test)
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


def _tensors(source: Source) -> tuple[torch.Tensor, torch.Tensor]:
    (images,), labels = source.read(range(len(source)))
    return torch.from_numpy(images), torch.from_numpy(np.asarray(labels))


def _save(network: nn.Module) -> None:
    """Write the weights whole: a run that is killed here leaves no half file for the next one."""
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    temporary = WEIGHTS.with_name(f".{WEIGHTS.name}.{os.getpid()}")
    torch.save(network.state_dict(), temporary)
    os.replace(temporary, WEIGHTS)


if __name__ == "__main__":
    model()
