"""ResNet-56 and ResNet-20 on CIFAR-10 with budgets that int8 alone does not meet, under a time limit.

    python benchmarks/structure.py --depth 56 --minutes 10 --minutes 30 --minutes 60
    python benchmarks/structure.py --depth 20 --minutes 10
    python benchmarks/structure.py --depth 56 --minutes 30 --method plain

Each row takes as many minutes as it says, on all cores. Rows are added to benchmarks/results/structure.json, in place
of older ones of the same name; the table of all of them is printed. `plain` is what one would write by hand:
torch-pruning by magnitude, distillation in float32, onnxruntime's int8.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from cifar10 import HERE, SETTINGS, compare, plain, stamp
from networks import cifar10, cifar_resnet
from plain_script import pruned_and_distilled

from autocompress import Task, autocompress
from autocompress.data.augmentation import crop_flip
from autocompress.data.example_inputs import example_for
from autocompress.runtimes import OnnxRuntime

RESULTS = HERE / "results" / "structure.json"
BUDGETS: dict[int, dict[str, float | str]] = {
    56: {"latency_ms": "0.3x", "size_mb": "0.25x", "max_accuracy_drop_pp": 2.0},
    20: {"latency_ms": "0.5x", "size_mb": "0.25x", "max_accuracy_drop_pp": 2.0},
}


def ours(depth: int, minutes: float, task: Task, folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    result = autocompress(
        cifar_resnet(depth), "local", task, budgets=BUDGETS[depth], max_time=60 * minutes, out=folder / "run"
    )
    seconds = time.monotonic() - start
    row = compare(f"ResNet-{depth}, autocompress, {minutes:g} min", result.artifact, result.baseline, task)
    # the answer's own certificate, at the error probability of its look, is what counts
    findings = {finding.budget.metric: finding.to_json() for finding in result.verdict.findings}
    certified = {"status": str(result.status), "seconds": seconds, "plan": str(result.plan), "findings": findings}
    return {**row, **certified, "trials": len(result.history)}


def by_hand(depth: int, minutes: float, task: Task, folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    model = cifar_resnet(depth)
    small = pruned_and_distilled(model, task, seconds=60 * minutes)
    runtime, example = OnnxRuntime(), example_for(model, task, None, ())
    baseline = runtime.export(model, example, folder / "baseline.onnx")
    exported = runtime.export(small, example, folder / "small.onnx")
    artifact = plain(exported, SETTINGS["onnxruntime static int8, by an expert"], task, folder)
    seconds = time.monotonic() - start
    row = compare(f"ResNet-{depth}, a plain script, {minutes:g} min", artifact, baseline, task)
    return {**row, "seconds": seconds, "plan": "half of the inner channels by magnitude, distillation, static int8"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, choices=sorted(BUDGETS), default=56)
    parser.add_argument("--minutes", type=float, action="append", default=[])
    parser.add_argument("--method", choices=("autocompress", "plain"), default="autocompress")
    arguments = parser.parse_args()
    data = cifar10()
    task = Task(test=data.test, train=data.train, augment=crop_flip, name="cifar10")
    make = ours if arguments.method == "autocompress" else by_hand
    for minutes in arguments.minutes:
        with tempfile.TemporaryDirectory() as name:
            write(make(arguments.depth, minutes, task, Path(name)))
    print_table()


def write(row: dict[str, Any]) -> None:
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [old for old in rows if old["what"] != row["what"]]
    RESULTS.write_text(json.dumps([*rows, {**row, **stamp()}], indent=2) + "\n")


def print_table() -> None:
    print("| network, method, time | latency | size | accuracy | drop, 95 % bound | answer |")
    print("|---|---|---|---|---|---|")
    for row in json.loads(RESULTS.read_text()):
        answer = f"{row['status']} after {row['seconds'] / 60:.1f} min" if "status" in row else ""
        print(
            f"| {row['what']} | {row['latency_ratio']:.3f}x | {row['size_ratio']:.3f}x | {row['accuracy']:.2f} "
            f"| {row['drop_pp']:.2f}, at most {row['drop_high_pp']:.2f} pp | {answer} |"
        )


if __name__ == "__main__":
    main()
