"""What helps recovery: three comparisons on ResNet-56, 10 of its 25 droppable blocks gone, at the same number of steps.

    python benchmarks/recovery.py [--steps 470]

Structure in two rounds against one, blocks chosen by divergence of the outputs against the norm of their branch, the
teacher's answers kept against fresh ones, and blocks led to the original's outputs against not. Every figure is from
the int8 artifact on the 6,648 holdout images; the difference is paired, with a 90 % interval (two one-sided 95 %
bounds). Writes benchmarks/results/recovery.json. About 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from cifar10 import HERE, stamp
from networks import cifar10, cifar_resnet

from autocompress import Task, load_profile
from autocompress.analysis.divergence import Divergence
from autocompress.api import apply_plan
from autocompress.core.plan import Plan, Setting, Stage, Step
from autocompress.data.augmentation import crop_flip
from autocompress.data.example_inputs import example_for
from autocompress.devices import LocalDevice
from autocompress.evaluation.scorer import Scorer
from autocompress.pruning.blocks import droppable_blocks, skipping
from autocompress.runtimes import OnnxRuntime
from autocompress.statistics.bounds import drop_bounds

DROPPED = 10
INT8 = Step(
    "int8_static",
    Stage.PRECISION,
    {
        "activation": "uint8",
        "weight": "int8",
        "per_channel": True,
        "calibration": "minmax",
        "samples": 256,
        "reduce_range": False,
    },
)


def drop(blocks: list[str]) -> Step:
    return Step("block_dropping", Stage.STRUCTURE, {"blocks": " ".join(blocks)})


def distil(steps: int, views: int = 10, feature_weight: float = 0.0) -> Step:
    schedule: dict[str, Setting] = {"steps": steps, "batch": 128, "seed": 0, "learning_rate": 0.05, "optimizer": "sgd"}
    return Step("distillation", Stage.RECOVERY, {**schedule, "views": views, "feature_weight": feature_weight})


def by_divergence(task: Task) -> list[str]:
    """Greedy, measured again as blocks go."""
    model = cifar_resnet(56)
    example = example_for(model, task, None, ())
    kinds = droppable_blocks(model, example)
    divergence = Divergence(model, example, task.calibration)
    order: list[str] = []
    while len(order) < DROPPED:
        found = {}
        for name in (name for name in kinds if name not in order):
            with skipping(model, [*order, name], kinds):
                found[name] = divergence.of(model)
        order.append(min(found, key=lambda name: found[name]))
    return order


def by_norm(task: Task) -> list[str]:
    """The smallest scales of the last batch-norm of the branch."""
    model = cifar_resnet(56)
    kinds = droppable_blocks(model, example_for(model, task, None, ()))
    norms = {name: float(model.get_submodule(f"{name}.bn2").weight.detach().norm()) for name in kinds}
    return sorted(norms, key=lambda name: norms[name])[:DROPPED]


def tried(plan: Plan, task: Task, folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    result = apply_plan(plan, cifar_resnet(56), "local", task, budgets={"latency_ms": "1x"}, out=folder)
    scorer = Scorer(LocalDevice(OnnxRuntime()), load_profile("local"), task)
    scores = scorer.readings(result.artifact, task.holdout)["score"].samples
    return {"scores": scores, "seconds": time.monotonic() - start}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=470)
    steps = parser.parse_args().steps
    data = cifar10()
    task = Task(test=data.test, train=data.train, augment=crop_flip, name="cifar10")
    order = by_divergence(task)
    half = DROPPED // 2
    plans = {
        "one shot, by divergence, answers kept": Plan(((drop(order), distil(steps)),), (INT8,)),
        "two rounds": Plan(
            ((drop(order[:half]), distil(steps // 2)), (drop(order[half:]), distil(steps - steps // 2))), (INT8,)
        ),
        "by norm of the branch": Plan(((drop(by_norm(task)), distil(steps)),), (INT8,)),
        "fresh answers": Plan(((drop(order), distil(steps, views=0)),), (INT8,)),
        # every view comes twice, as in a run of 2,340 steps over ten views
        "answers kept, two views": Plan(((drop(order), distil(steps, views=2)),), (INT8,)),
        "features matched": Plan(((drop(order), distil(steps, views=0, feature_weight=1.0)),), (INT8,)),
    }
    rows: list[dict[str, Any]] = []
    reference: np.ndarray | None = None
    for name, plan in plans.items():
        with tempfile.TemporaryDirectory() as folder:
            found = tried(plan, task, Path(folder))
        scores = found.pop("scores")
        row = {"what": name, "plan": str(plan), "accuracy": 100 * float(scores.mean()), **found}
        if reference is None:
            reference = scores
        else:
            row |= difference(reference, scores)
        rows.append(row)
        print_row(row)
    report = {
        **stamp(),
        "steps": steps,
        "dropped": order,
        "rows": rows,
    }
    (HERE / "results" / "recovery.json").write_text(json.dumps(report, indent=2) + "\n")


def difference(reference: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """How much better scores are than those of the reference on the same items, with bounds of 95 % each."""
    lost, gained = int((reference > scores).sum()), int((scores > reference).sum())
    low, high = drop_bounds(lost, gained, len(scores), 0.05)
    return {"difference_pp": 100 * (gained - lost) / len(scores), "low_pp": -100 * high, "high_pp": -100 * low}


def print_row(row: dict[str, Any]) -> None:
    difference = ""
    if "difference_pp" in row:
        difference = f"{row['difference_pp']:+.2f} ({row['low_pp']:+.2f} to {row['high_pp']:+.2f})"
    print(f"| {row['what']} | {row['accuracy']:.2f} | {difference} | {row['seconds']:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
