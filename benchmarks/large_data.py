"""A run on 200,000 training and 50,000 test images of 224 x 224 through DataLoaders: time to open, memory over time.

    python benchmarks/large_data.py [--minutes 4]

Images are made from their index, two workers read them. Memory is that of the process and all its children, pages that
they share counted once (PSS). Writes benchmarks/results/large_data.json and prints the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10 import HERE, stamp
from torch import nn
from torch.utils.data import DataLoader, Dataset

from autocompress import Task, autocompress
from autocompress.system.progress import Event

RESULTS = HERE / "results" / "large_data.json"
TRAIN, TEST, VAL, SIDE, CLASSES = 200_000, 50_000, 1_000, 224, 4
SAMPLED_SECONDS = 0.25
# what a run says first when it is open
OPENED = "measuring the model as it is"


class Images(Dataset[Any]):
    """Noise with a bright quarter that is the class; float32 `(3, 224, 224)`."""

    def __init__(self, items: int, seed: int) -> None:
        self.items, self.seed = items, seed

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        drawn = np.random.default_rng((self.seed, index))
        image = drawn.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8).astype(np.float32) / 255
        label, half = index % CLASSES, SIDE // 2
        top, left = half * (label // 2), half * (label % 2)
        image[:, top : top + half, left : left + half] += 0.2
        return torch.from_numpy(image), label


def network() -> nn.Module:
    """Three convolutions, trained on a few batches: enough to tell the quarters."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 32, 8, 8), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(256, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(body.parameters(), lr=2e-3)
    for images, labels in DataLoader(Images(640, 3), batch_size=32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(body(images), labels).backward()
        optimizer.step()
    return body.eval()


class Watch:
    """Samples the memory of this process and its children, and the stage that a run is in."""

    def __init__(self) -> None:
        self.start, self.stage = time.monotonic(), "opening"
        self.began: dict[str, float] = {"opening": 0.0}
        self.cpu_before, self.cpu = sum(os.times()[:4]), dict[str, float]()
        self.peak_mb: dict[str, float] = {}
        self.over_time: list[tuple[float, float]] = [(0.0, round(tree_mb(os.getpid())))]
        threading.Thread(target=self._sample, daemon=True).start()

    def told(self, event: Event) -> None:
        """Take a progress event."""
        now = time.monotonic() - self.start
        # the export is part of the opening
        opened = self.stage != "opening" or event.sentence == OPENED
        if opened and event.stage not in ("data", self.stage):
            self.stage = event.stage
            self.began.setdefault(event.stage, round(now, 1))
            self.cpu.setdefault(event.stage, round(sum(os.times()[:4]) - self.cpu_before, 1))
        print(f"{now:6.1f} s  {self.over_time[-1][1]:5.0f} MB  {event.stage}: {event.sentence}", flush=True)

    def _sample(self) -> None:
        while True:
            mb = tree_mb(os.getpid())
            self.peak_mb[self.stage] = max(mb, self.peak_mb.get(self.stage, 0.0))
            self.over_time.append((round(time.monotonic() - self.start, 1), round(mb)))
            time.sleep(SAMPLED_SECONDS)


def tree_mb(pid: int) -> float:
    """The memory of a process and everything below it, in MB."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        below = [
            int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
        ]
    except (OSError, ValueError):
        return 0.0
    own = next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0) * 1024 / 1e6
    return own + sum(map(tree_mb, below))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0)
    minutes = parser.parse_args().minutes
    model = network()

    def loader(dataset: Dataset[Any]) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=64, num_workers=2)

    before = tree_mb(os.getpid())
    watch = Watch()
    task = Task(
        train=loader(Images(TRAIN, 0)),
        val=loader(Images(VAL, 1)),
        test=loader(Images(TEST, 2)),
        name="images",
    )
    budgets: dict[str, float | str] = {"latency_ms": "0.8x", "size_mb": "0.2x", "max_accuracy_drop_pp": 2.0}
    with tempfile.TemporaryDirectory() as folder:
        result = autocompress(
            model, "local", task, budgets=budgets, out=Path(folder) / "run", max_time=f"{minutes * 60:.0f}s",
            progress=watch.told,
        )  # fmt: skip
    every = watch.over_time[:: max(1, len(watch.over_time) // 60)]
    row = {
        **stamp(),
        "opening_seconds": watch.began.get("baseline"),
        # of this process and the workers that have ended: on a machine that does something else as well
        "opening_cpu_seconds": watch.cpu.get("baseline"),
        "load_average": os.getloadavg()[0],
        "before_mb": round(before),
        "peak_mb": {stage: round(mb) for stage, mb in watch.peak_mb.items()},
        "stages_began": watch.began,
        "memory_over_time": every,
        "status": str(result.status),
        "plan": str(result.plan),
        "data_check": list(result.data_check.sentences),
    }
    RESULTS.write_text(json.dumps(row, indent=2) + "\n")
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
