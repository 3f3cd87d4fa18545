"""Recovery in float followed by int8, against recovery that ends as quantized, in the same time, on ResNet-56.

    python benchmarks/quantized_recovery.py [--minutes 10] [--quantized-steps 300] [--dropped 8] [--threads 2]

Of its 25 droppable blocks those are gone whose loss moves the outputs least; with int8 the file is within 0.3x latency
and 0.25x size. One plan distils in float for all of the time and is quantized then; the other keeps the time of 300
steps of quantization-aware training back for the int8 file. Every figure is from the artifact on the 6,648 holdout
images; differences are paired, with a 90 % interval (two one-sided 95 % bounds). Writes
benchmarks/results/quantized_recovery.json. It takes about two and a half times the minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import recovery
import torch
from cifar10 import HERE, stamp
from networks import cifar10, cifar_resnet
from recovery import INT8, by_divergence, difference, distil, drop, print_row

from autocompress import Task
from autocompress.core.plan import Plan, Setting, Stage, Step
from autocompress.core.source import Split
from autocompress.data.augmentation import crop_flip
from autocompress.data.example_inputs import example_for
from autocompress.devices import LocalDevice
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.measurer import Measurer
from autocompress.evaluation.scorer import Scorer
from autocompress.models.module_model import ModuleModel
from autocompress.run.setup import declared, tools_of
from autocompress.runtimes import OnnxRuntime
from autocompress.system.workspace import Workspace
from autocompress.training.cost import measure_training
from autocompress.training.file_training import Learned, step_seconds

RESULTS = HERE / "results" / "quantized_recovery.json"
BATCH = 64


def trained_as_quantized(steps: int) -> Step:
    same: dict[str, Setting] = {"batch": BATCH, "learning_rate": 0.001, "optimizer": "sgd", "bits": 8, "seed": 0}
    return Step("quantization_aware_training", Stage.TUNING, {"steps": steps, "ranges": "learned", **same})


class Bench:
    """Builds plans of ResNet-56 in one folder, and scores and times their files."""

    def __init__(self, folder: Path, task: Task) -> None:
        profile = declared("local", {"latency_ms": "1x"})
        tools = tools_of(profile)
        example = example_for(cifar_resnet(56), task, None, ())
        self.task, self.example = task, example
        workspace = Workspace(folder)
        workspace.open(resume=False)
        self.builder = Builder(ModuleModel(cifar_resnet(56)), example, task, profile, tools, workspace)
        self.measurer = Measurer(tools.device, profile, task, {"": example}, self.builder.baseline)
        self.scorer = Scorer(LocalDevice(OnnxRuntime()), profile, task)

    def scores(self, plan: Plan, split: Split) -> tuple[np.ndarray, dict[str, Any]]:
        """The scores of a plan's file by item, and a row about it."""
        began = time.monotonic()
        trained = self.builder.trained(plan, lambda: None)
        seconds = time.monotonic() - began
        artifact = self.builder.build(trained)
        found = self.scorer.readings(artifact, split)["score"].samples
        size = artifact.size_bytes / self.builder.baseline.size_bytes
        return found, {"accuracy": 100 * float(found.mean()), "seconds": seconds, "size": size, "plan": str(trained)}

    def latency(self, plan: Plan) -> dict[str, float]:
        """The latency of a plan's file as a share of the baseline's: median and quartiles over the loads."""
        found = self.measurer.time(self.builder.build(plan), 20.0)
        ratios = found.latency_ratios("p50")
        return {"latency": float(np.median(ratios)), **{f"q{q}": float(np.percentile(ratios, q)) for q in (25, 75)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dropped", type=int, default=8)
    parser.add_argument("--quantized-steps", type=int, default=300, choices=[30, 300, 1000])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recovery.DROPPED = given.dropped
    data = cifar10()
    task = Task(test=data.test, train=data.train, augment=crop_flip, name="cifar10")
    split = task.holdout
    assert split is not None
    structure = drop(by_divergence(task))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), task)
        untrained = Plan(((structure,),), (INT8,))
        student = bench.builder.untrained((structure,))
        timed = measure_training(student, bench.builder.module, task, bench.example, seconds_left=60 * given.minutes)
        assert timed is not None
        each = timed.seconds_per_step + timed.asking_seconds
        quantized = step_seconds(
            bench.builder.build(untrained), bench.builder.start, task, bench.example, BATCH, Learned()
        )
        steps = int(60 * given.minutes / each)
        shorter = max(1, steps - int(given.quantized_steps * quantized / each))
        print(f"{each:.2f} s a step in float, {quantized:.2f} s as quantized; {steps} or {shorter} steps", flush=True)
        plans = {
            "float for all of the time, then int8": Plan(((structure, distil(steps)),), (INT8,)),
            "float, then as quantized": Plan(
                ((structure, distil(shorter)),), (INT8, trained_as_quantized(given.quantized_steps))
            ),
            "float for all of the time, not quantized": Plan(((structure, distil(steps)),)),
            "float for the shorter time, then int8": Plan(((structure, distil(shorter)),), (INT8,)),
        }
        rows: list[dict[str, Any]] = []
        reference: np.ndarray | None = None
        for name, plan in plans.items():
            scores, row = bench.scores(plan, split)
            row = {"what": name, **row}
            if reference is None:
                reference = scores
                row |= bench.latency(plan)
            else:
                row |= difference(reference, scores)
            rows.append(row)
            print_row(row)
            RESULTS.write_text(
                json.dumps({**stamp(), **vars(given), "steps": [steps, shorter], "rows": rows}, indent=2)
            )


if __name__ == "__main__":
    main()
