"""Static int8 with and without equalization, on three networks, judged by the file's own answers.

    python benchmarks/equalization.py [--only depthwise --only outliers --only minilm]

- depthwise: a network of MobileNetV2's blocks without batch norm, trained on digits here (seed 0), as it is and with
  its channels badly scaled: each channel between two layers times a factor of 1 to 100, and the weights that read it
  divided by it, which leaves the function as it is.
- outliers: an encoder with norms before its layers and random weights, whose norms give three channels of 64 a hundred
  times the others' values.
- minilm: MiniLM-L6 on 400 validation sentences of SST-2, weights per channel; its masked attention scores stay in
  float.

Writes benchmarks/results/equalization.json and prints a table. MiniLM takes about a minute and a half.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10 import HERE, stamp
from more_networks import minilm, sst2
from torch import nn
from torch.nn import functional

from autocompress import Task
from autocompress.analysis.range_facts import outlier_ratio, range_spread
from autocompress.core.artifact import Artifact
from autocompress.core.plan import Setting
from autocompress.core.runtime import Example, feeds
from autocompress.core.search_space import first_options
from autocompress.core.source import ArraySource, Split, whole
from autocompress.core.technique import Context
from autocompress.data.data_spec import load_data
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.techniques import Equalization, Int8Static

RESULTS = HERE / "results" / "equalization.json"
PREPARATIONS: dict[str, dict[str, Setting]] = {
    "none": {},
    "cross_layer": {"method": "cross_layer", "alpha": 0.5},
    "smooth, alpha 0.5": {"method": "smooth", "alpha": 0.5},
    "smooth, alpha 0.75": {"method": "smooth", "alpha": 0.75},
}
EPOCHS, LARGEST_FACTOR, WIDTH = 40, 100.0, 64
SENTENCES = 400


class Inverted(nn.Module):
    """An inverted residual block (Sandler et al. 2018) without batch norm."""

    def __init__(self, given: int, wide: int, taken: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(given, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.project = nn.Conv2d(wide, taken, 1)
        self.residual = given == taken

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(functional.relu(self.depthwise(functional.relu(self.expand(x)))))
        return x + y if self.residual else y


class Depthwise(nn.Module):
    """Four such blocks for images of 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.Sequential(
            Inverted(16, 64, 24), Inverted(24, 96, 24), nn.MaxPool2d(2), Inverted(24, 96, 32), Inverted(32, 128, 32)
        )
        self.last, self.head = nn.Conv2d(32, 128, 1), nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = functional.relu(self.last(self.blocks(functional.relu(self.stem(image)))))
        return self.head(features.mean((2, 3)))


class Encoder(nn.Module):
    """Three feed-forward layers with norms before them (`gelu`) and a head; takes `(n, tokens, 64)`."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.up = nn.ModuleList(nn.Linear(WIDTH, 4 * WIDTH) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(4 * WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            x = x + down(functional.gelu(up(norm(x))))
        return self.head(self.norms[3](x).mean(1))


def trained(task: Task) -> Depthwise:
    torch.manual_seed(0)
    model = Depthwise()
    inputs, labels = whole("train", task.train).source.read(range(len(task.train)))
    images, targets = torch.from_numpy(np.asarray(inputs[0])), torch.from_numpy(np.asarray(labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[chosen]), targets[chosen]).backward()
            optimizer.step()
    return model.eval()


def badly_scaled(model: Depthwise) -> Depthwise:
    """The same function with channels of very different ranges."""
    draws = np.random.default_rng(0)
    blocks = [block for block in model.blocks if isinstance(block, Inverted)]
    pairs: list[tuple[nn.Module, nn.Module]] = [(model.last, model.head)]
    for block in blocks:
        pairs += [(block.expand, block.depthwise), (block.depthwise, block.project)]
    with torch.no_grad():
        for before, behind in pairs:
            factors = torch.from_numpy(LARGEST_FACTOR ** draws.uniform(0, 1, len(before.weight))).float()
            before.weight.mul_(factors.reshape(-1, *(1,) * (before.weight.ndim - 1)))
            before.bias.mul_(factors)
            reads = (-1, 1, 1, 1) if getattr(behind, "groups", 1) > 1 else (1, -1, *(1,) * (behind.weight.ndim - 2))
            behind.weight.div_(factors.reshape(reads))
    return model


def with_outliers() -> Encoder:
    """Random weights; in every norm three channels are a hundred times larger, and are read a hundred times less."""
    torch.manual_seed(0)
    model = Encoder()
    factors = torch.ones(WIDTH)
    factors[[5, 23, 40]] = LARGEST_FACTOR
    with torch.no_grad():
        for norm, reader in zip(model.norms, (*model.up, model.head), strict=True):
            norm.weight.mul_(factors)
            reader.weight.div_(factors)
    return model.eval()


@dataclass(frozen=True)
class Case:
    """A network, the items to calibrate and to judge with, and what is quantized of it."""

    name: str
    module: Callable[[], nn.Module]
    calibration: Split
    judged: Split
    per_channel: tuple[bool, ...] = (False, True)
    labelled: bool = True


def cases(names: list[str]) -> Iterator[Case]:
    if "depthwise" in names:
        digits = load_data("digits")
        calibration, judged = digits.calibration, whole("test", digits.test)
        yield Case("depthwise network, digits", lambda: trained(digits), calibration, judged)
        yield Case("depthwise network, badly scaled", lambda: badly_scaled(trained(digits)), calibration, judged)
    if "outliers" in names:
        values = np.random.default_rng(0).standard_normal((768, 16, WIDTH)).astype(np.float32)
        split = whole("random", ArraySource((values,), np.zeros(768, dtype=np.int64)))
        calibration = split.first(256)
        yield Case(
            "encoder with outliers", with_outliers, calibration, split.without(calibration.indices), labelled=False
        )
    if "minilm" in names:
        task = sst2()
        calibration, judged = task.calibration, whole("val", task.val).first(SENTENCES)
        yield Case("MiniLM-L6, SST-2", minilm, calibration, judged, (True,))


def answers(artifact: Artifact, split: Split) -> tuple[np.ndarray, np.ndarray]:
    session = OnnxRuntime().load(artifact, 1, {})
    found = [(session.run(feed)[0][: len(targets)], targets) for feed, targets in feeds(split, artifact, 32)]
    return np.concatenate([one for one, _ in found]), np.concatenate([np.asarray(one) for _, one in found])


def compared(artifact: Artifact, wanted: np.ndarray, judged: Split) -> Mapping[str, float]:
    """Against the float file: changed answers, divergence of the probabilities; the share of right answers."""
    found, labels = answers(artifact, judged)
    first, second = (torch.from_numpy(one).double().log_softmax(1) for one in (wanted, found))
    return {
        "accuracy": float((found.argmax(1) == labels).mean()),
        "same_answer": float((found.argmax(1) == wanted.argmax(1)).mean()),
        "divergence": float((first.exp() * (first - second)).sum(1).mean()),
        "relative_error": float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)),
    }


def rows_of(case: Case, folder: Path) -> Iterator[dict[str, Any]]:
    inputs, _ = next(case.calibration.first(2).batches(2))
    example = Example(inputs)
    artifact = OnnxRuntime().export(case.module(), example, folder / "float.onnx", named=True)
    wanted, labels = answers(artifact, case.judged)
    facts: dict[str, Any] = {
        "what": case.name,
        "ranges": range_spread(load_model(artifact.path)),
        "outliers": outlier_ratio(artifact, (feed for feed, _ in feeds(case.calibration.first(64), artifact, 16))),
    }
    if case.labelled:
        facts["float_accuracy"] = float((wanted.argmax(1) == labels).mean())
    first = first_options(Int8Static.choices)
    for preparation, settings in PREPARATIONS.items():
        inside = folder / preparation
        inside.mkdir()
        context = Context(None, example, case.calibration, inside)
        try:
            prepared = Equalization().apply(artifact, settings, context) if settings else artifact
        except TechniqueError as error:
            yield {**facts, "preparation": preparation, "failure": str(error)}
            continue
        for per_channel in case.per_channel:
            made = Int8Static().apply(prepared, {**first, "per_channel": per_channel}, context)
            row = {**facts, "preparation": preparation, "per_channel": per_channel}
            found = compared(made, wanted, case.judged)
            yield {**row, **{key: value for key, value in found.items() if case.labelled or key != "accuracy"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["depthwise", "outliers", "minilm"]
    parser.add_argument("--only", action="append", choices=names, default=[])
    chosen = parser.parse_args().only or names
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for case in cases(chosen):
        rows = [row for row in rows if row["what"] != case.name]
        with tempfile.TemporaryDirectory() as folder:
            for row in rows_of(case, Path(folder)):
                rows.append(row)
                print(json.dumps(row), flush=True)
        RESULTS.write_text(json.dumps({**stamp(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
