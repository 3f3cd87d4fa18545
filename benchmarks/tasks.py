"""Networks that are no CIFAR ResNets, compressed to budgets on their real tasks, each with its path explained.

    python benchmarks/tasks.py [--only minilm --only lstm --only mlp --only squeezenet --only two_heads --only detector]

Accuracy is certified on test items that take no part in training or validation. Writes benchmarks/results/tasks.json
and prints the README's table. About 30 minutes on two cores. The network with two heads is that of
examples/two_heads.py, the detector that of examples/detector.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar10 import HERE, stamp
from more_networks import activity, har, imagenet_sample, minilm, mnist, mnist_mlp, squeezenet, sst2
from torch import nn

from autocompress import Result, Task, autocompress

RESULTS = HERE / "results" / "tasks.json"
sys.path.insert(0, str(HERE.parent / "examples"))
example: Any = importlib.import_module("two_heads")
detector_example: Any = importlib.import_module("detector")
Budgets = dict[str, float | str]


def two_heads() -> nn.Module:
    """The example's network, trained on its shapes."""
    found: nn.Module = example.model(drawn_shapes())
    return found


def drawn_shapes() -> Task:
    """2,000 drawn images to train on, 1,000 to choose and 2,000 to confirm with."""
    found: Task = example.data(2000)
    return found


def detector() -> nn.Module:
    """The example's SSDlite, trained on its images in two to three minutes of one core."""
    found: nn.Module = detector_example.model(images_with_boxes())
    return found


def images_with_boxes() -> Task:
    """2,400 drawn images to train on; a third of 2,400 others to choose, the rest to confirm with."""
    found: Task = detector_example.data(2400)
    return found


TASKS: dict[str, tuple[str, Callable[[], nn.Module], Callable[[], Task], Budgets]] = {
    "minilm": (
        "MiniLM-L6, SST-2",
        minilm,
        sst2,
        {"latency_ms": "0.6x", "size_mb": "0.35x", "max_accuracy_drop_pp": 3.0},
    ),
    "lstm": ("LSTM, HAR", activity, har, {"latency_ms": "3x", "size_mb": "0.4x", "max_accuracy_drop_pp": 2.0}),
    "mlp": ("MLP, MNIST", mnist_mlp, mnist, {"latency_ms": "3x", "size_mb": "0.15x", "max_accuracy_drop_pp": 1.0}),
    "squeezenet": (
        "SqueezeNet 1.1, ImageNet sample, no training data",
        squeezenet,
        imagenet_sample,
        {"latency_ms": "0.7x", "size_mb": "0.3x", "max_accuracy_drop_pp": 3.0},
    ),
    "two_heads": (
        "CNN with two heads, drawn shapes and their directions",
        two_heads,
        drawn_shapes,
        {"latency_ms": "2x", "size_mb": "0.08x", "max_accuracy_drop_pp": 4.0},
    ),
    "detector": (
        "SSDlite, drawn shapes, mAP at IoU 0.5",
        detector,
        images_with_boxes,
        {"latency_ms": "2x", "size_mb": "0.25x", "max_accuracy_drop_pp": 4.0},
    ),
}


def row_of(what: str, result: Result, budgets: Budgets, seconds: float) -> dict[str, Any]:
    findings = {finding.budget.metric: finding.to_json() for finding in result.verdict.findings}
    return {
        "what": what,
        "budgets": budgets,
        "status": str(result.status),
        "seconds": seconds,
        "plan": str(result.plan),
        "findings": findings,
        "explanation": list(result.explanation),
        "path": [f"{one.question} {one.answer}: {one.found}" for one in result.search_space.decisions],
        "predictions": [one.to_json() for one in result.predictions],
    }


def line_of(row: dict[str, Any]) -> str:
    """A row of the README's table."""
    found, budgets = row["findings"], row["budgets"]
    asked = f"{budgets['latency_ms']}, {budgets['size_mb']}, {budgets['max_accuracy_drop_pp']:g} pp"
    drop = found["max_accuracy_drop_pp"]
    lost = (
        "-" if drop["value"] is None else f"{drop['value']:.2f}, at most {drop['high']:.2f} pp of {drop['samples']:,}"
    )
    techniques = " + ".join(dict.fromkeys(re.findall(r"([a-z0-9_]+)\(", row["plan"])))
    answer = f"{row['status']} after {row['seconds'] / 60:.1f} min"
    cells = (row["what"], asked, *(f"{found[m]['value']:.2f}x" for m in ("latency_ms", "size_mb")), lost, techniques)
    return f"| {' | '.join((*cells, answer))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(TASKS), default=[])
    chosen = parser.parse_args().only or list(TASKS)
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for name in chosen:
        what, model, task, budgets = TASKS[name]
        with tempfile.TemporaryDirectory() as folder:
            module, data = model(), task()
            start = time.monotonic()
            result = autocompress(module, "local", data, budgets=budgets, max_time="15m", out=Path(folder) / "run")
            row = row_of(what, result, budgets, time.monotonic() - start)
        rows = [*(old for old in rows if old["what"] != what), row]
        RESULTS.write_text(json.dumps({**stamp(), "rows": rows}, indent=2) + "\n")
        print(json.dumps(row, indent=2), flush=True)
    print("| network and task | budgets | latency | size | drop, 95 % bound | plan | answer |\n" + "|---" * 7 + "|")
    print("\n".join(line_of(row) for row in rows))


if __name__ == "__main__":
    main()
