"""What the planner makes of different architectures: facts, path, refusals, predicted and measured size and latency.

    pip install -e .[transformers]     # for the shapes of BERT, GPT-2 and T5
    python benchmarks/architectures.py [--only resnet18 --only bert_base ...]

Each network is planned in a process of its own, whose time and peak memory are taken; then the first plan of every
recipe that needs no training is built and measured. Networks without real weights have random ones: size and latency
do not depend on them. Writes benchmarks/results/architectures.json and docs/architectures.md. About 40 minutes on two
cores.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures_page import write_page
from cifar10 import HERE, stamp
from more_networks import activity, har, imagenet_sample, minilm, mnist, mnist_mlp, squeezenet, sst2
from networks import cifar10, cifar_resnet
from torch import nn

from autocompress import Plan, Task
from autocompress.api import explain
from autocompress.core.budget import Budget
from autocompress.core.profile import Profile, load_profile
from autocompress.core.search_space import Recipe
from autocompress.core.source import ArraySource
from autocompress.data.vision import import_torchvision, prepare_torchvision
from autocompress.errors import AutocompressError
from autocompress.evaluation.run import Run
from autocompress.run.setup import open_run

RESULTS = HERE / "results" / "architectures.json"
ITEMS, TOKENS, CLASSES = 24, 64, 1000
REAL: dict[str, tuple[Callable[[], nn.Module], Callable[[], Task]]] = {
    "ResNet-20 (CIFAR-10)": (lambda: cifar_resnet(20), cifar10),
    "ResNet-56 (CIFAR-10)": (lambda: cifar_resnet(56), cifar10),
    "SqueezeNet 1.1 (ImageNet sample)": (squeezenet, imagenet_sample),
    "MiniLM-L6 (SST-2)": (minilm, sst2),
    "LSTM (HAR)": (activity, har),
    "MLP (MNIST)": (mnist_mlp, mnist),
}
VISION = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vit_b_16",
    "swin_t", "maxvit_t", "shufflenet_v2_x1_0", "densenet121", "regnet_y_400mf", "squeezenet1_1", "googlenet",
    "mnasnet1_0", "deeplabv3_mobilenet_v3_large",
)  # fmt: skip
LANGUAGE = ("bert_base", "gpt2", "t5_small")
BUDGETS: dict[str, float | str] = {"latency_ms": "0.25x", "size_mb": "0.15x", "max_accuracy_drop_pp": 2.0}
PATIENCE_SECONDS, MEASURED_SECONDS = 900, 4.0


def pixels(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Share of pixels that are right, `(n,)`; outputs are `(n, classes, height, width)`."""
    return np.asarray((outputs.argmax(1) == targets).mean(axis=(1, 2)), dtype=np.float64)


def vision(name: str) -> tuple[nn.Module, Task]:
    """A torchvision network of random weights, and random images."""
    models = import_torchvision().models
    random = np.random.default_rng(0)
    images = random.standard_normal((ITEMS, 3, 224, 224)).astype(np.float32)
    torch.manual_seed(0)
    if name.startswith("deeplab"):
        network = models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)
        targets = random.integers(0, 21, (ITEMS, 224, 224))
        return network.eval(), Task(test=ArraySource((images,), targets), score=pixels)
    options = {"init_weights": True} if name == "googlenet" else {}
    network = getattr(models, name)(weights=None, **options)
    return network.eval(), Task(test=ArraySource((images,), random.integers(0, CLASSES, ITEMS)))


def language(name: str) -> tuple[nn.Module, Task]:
    """A network from a configuration of transformers, of random weights, and random tokens."""
    # transformers imports torchvision
    prepare_torchvision()
    transformers: Any = importlib.import_module("transformers")
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    ids = random.integers(1, 30_000, (ITEMS, TOKENS))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if name == "bert_base":
        network = transformers.BertForSequenceClassification(transformers.BertConfig())
        return network.eval(), Task(test=ArraySource(inputs, random.integers(0, 2, ITEMS)))
    if name == "gpt2":
        network = transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))
        return network.eval(), Task(test=ArraySource({"input_ids": ids}, ids), score="token_accuracy")
    config = transformers.T5Config(decoder_start_token_id=0, use_cache=False)
    inputs = {"input_ids": ids, "decoder_input_ids": ids[:, : TOKENS // 4]}
    network = transformers.T5ForConditionalGeneration(config)
    return network.eval(), Task(test=ArraySource(inputs, ids[:, : TOKENS // 4]), score="token_accuracy")


def made(name: str) -> tuple[nn.Module, Task]:
    """A network of the list with its data."""
    if name in REAL:
        network, task = REAL[name]
        return network(), task()
    return language(name) if name in LANGUAGE else vision(name)


def peak_mb() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def first_plan(recipe: Recipe) -> Plan:
    """The plan that the recipe begins with: where it is expected to fit, or its most promising settings."""
    plans = list(recipe.plans())
    return plans[recipe.likely or 0] if recipe.nested else plans[0]


def measured(recipe: Recipe, run: Run) -> dict[str, Any]:
    """A recipe's predictions beside what its first plan comes to."""
    plan = first_plan(recipe)
    latency, size = recipe.predicted(plan)
    row: dict[str, Any] = {
        "recipe": recipe.name,
        "predicted_latency": latency,
        "predicted_size": size,
        "plan": str(plan),
    }
    try:
        artifact = run.builder.build(plan)
        ratios = run.measurer.time(artifact, MEASURED_SECONDS).latency_ratios("p50")
    except AutocompressError as error:
        return {**row, "failure": str(error)[:200]}
    return {**row, "latency": float(np.median(ratios)), "size": artifact.size_bytes / run.baseline.size_bytes}


def brief() -> Profile:
    """The profile `local`, asked for more than int8 alone gives, and measured briefly."""
    local = load_profile("local").with_budgets([Budget.parse(metric, limit) for metric, limit in BUDGETS.items()])
    return replace(local, protocol=replace(local.protocol, max_seconds=MEASURED_SECONDS))


def one(name: str) -> dict[str, Any]:
    """The row of a network; see `peak_mb` for what is in `memory_mb`."""
    module, task = made(name)
    bytes_ = sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
    before, began = peak_mb(), time.monotonic()
    planned = explain(module, brief(), task)
    seconds, peak = time.monotonic() - began, peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(module, brief(), task, out=Path(folder) / "run")
        recipes = [measured(recipe, run) for recipe in planned.search_space.recipes if not recipe.rounds]
        run.close()
    return {
        "name": name,
        "date": stamp()["date"],
        "timed": stamp()["date"],
        "random_weights": name not in REAL,
        "model_mb": bytes_ / 1e6,
        "seconds": seconds,
        "memory_before_mb": before,
        "memory_mb": peak,
        "facts": {key: value for key, value in planned.facts.to_json().items() if key not in ("layers", "weights")},
        "layers": len(planned.facts.layers),
        "path": [decision.to_json() for decision in planned.search_space.decisions],
        "refusals": {key: reason.to_json() for key, reason in planned.search_space.refusals.items()},
        "trained_recipes": [recipe.name for recipe in planned.search_space.recipes if recipe.rounds],
        "recipes": recipes,
    }


def in_a_process(name: str) -> dict[str, Any]:
    """The row, from a process of its own; what went wrong where it ended badly."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        # nothing that an earlier run has measured
        environment = {**os.environ, "AUTOCOMPRESS_CACHE": str(Path(folder) / "cache")}
        command = [sys.executable, __file__, "--row", name, "--out", str(out)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, env=environment
        )
        if done.returncode or not out.exists():
            return {"name": name, "failure": done.stderr.strip().splitlines()[-1][:300] if done.stderr else "killed"}
        row: dict[str, Any] = json.loads(out.read_text())
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*REAL, *VISION, *LANGUAGE]
    parser.add_argument("--only", action="append", choices=names, default=[])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.row:
        chosen.out.write_text(json.dumps(one(chosen.row)))
        return
    kept = {row["name"]: row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    for name in chosen.only or names:
        kept[name] = in_a_process(name)
        rows = [kept[known] for known in names if known in kept]
        RESULTS.write_text(json.dumps({**stamp(), "rows": rows}, indent=2) + "\n")
        row = kept[name]
        print(name, row.get("failure") or f"{row['seconds']:.0f} s, {row['memory_mb']:.0f} MB", flush=True)
    write_page(json.loads(RESULTS.read_text()), names)


if __name__ == "__main__":
    main()
