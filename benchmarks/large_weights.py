"""A run on a network with 2.2 GB of weights in float32, given as a module or as an ONNX file: memory and seconds.

    python benchmarks/large_weights.py [--file] [--width 8192] [--layers 8] [--json FILE]

Eight layers of 8192 x 8192 with random weights and ten classes; the labels are the network's own answers to 300 items
of noise. Memory is that of the process and all its children, pages that they share counted once (PSS). Writes
benchmarks/results/large_weights.json, or the file that is named, and prints the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10 import HERE, stamp
from large_data import Watch
from torch import nn

from autocompress import autocompress
from autocompress.core.profile import load_profile
from autocompress.runtimes import OnnxRuntime

RESULTS = HERE / "results" / "large_weights.json"
ITEMS, CLASSES = 300, 10
BUDGETS: dict[str, float | str] = {"size_mb": "0.4x", "max_accuracy_drop_pp": 20}
SECONDS_OF_TIMING = 5.0


def network(width: int, layers: int) -> nn.Module:
    """Linear layers with bias, each followed by a ReLU but the last."""
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for place in range(layers + 1):
        layer = nn.Linear(width, width if place < layers else CLASSES, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            # scales differ from row to row, as those of trained layers do
            layer.weight.normal_(0, (2 / width) ** 0.5).mul_(torch.rand(len(layer.weight), 1) + 0.5)
            layer.bias.normal_(0, 0.1)
        parts += [layer, nn.ReLU()] if place < layers else [layer]
    return nn.Sequential(*parts).eval()


def answers(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    """The module's outputs."""
    with torch.inference_mode():
        return module(torch.from_numpy(inputs)).numpy()


def exported(width: int, layers: int, folder: Path) -> None:
    """Write the network as people do, with its outputs on the items beside it."""
    module, inputs = network(width, layers), items(width)
    torch.onnx.export(
        module, (torch.from_numpy(inputs[:2]),), folder / "net.onnx", dynamo=True, external_data=True, verbose=False,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), input_names=["features"], output_names=["scores"],
    )  # fmt: skip
    np.save(folder / "outputs.npy", answers(module, inputs))


def items(width: int) -> np.ndarray:
    """The inputs, `(ITEMS, width)`."""
    return np.random.default_rng(0).standard_normal((ITEMS, width)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", action="store_true", help="give the network as an ONNX file")
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--only-export", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_export:
        exported(given.width, given.layers, given.only_export)
        return
    with tempfile.TemporaryDirectory() as folder:
        row = measured(given, Path(folder))
    known = json.loads(RESULTS.read_text()) if given.json is None and RESULTS.exists() else {}
    known["file" if given.file else "module"] = row
    (given.json or RESULTS).write_text(json.dumps(known, indent=2) + "\n")
    print(json.dumps(row, indent=2))


def measured(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run, compare the file that ships with the network, and give the figures."""
    inputs = items(given.width)
    model: nn.Module | Path
    if given.file:
        # by a process of its own, whose memory is none of the run's
        sizes = ["--width", str(given.width), "--layers", str(given.layers)]
        subprocess.run([sys.executable, __file__, *sizes, "--only-export", str(folder)], check=True)
        model, outputs = folder / "net.onnx", np.load(folder / "outputs.npy")
    else:
        model = network(given.width, given.layers)
        outputs = answers(model, inputs)
    weights = 4 * given.width * given.width * given.layers
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    watch = Watch()
    profile = load_profile("local")
    profile = replace(profile, protocol=replace(profile.protocol, max_seconds=SECONDS_OF_TIMING), budgets=())
    began = time.monotonic()
    result = autocompress(
        model, profile, (inputs, outputs.argmax(1)), budgets=BUDGETS, out=folder / "run", progress=watch.told
    )
    seconds = time.monotonic() - began
    peak, children = (
        resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    ends = [*list(watch.began.values())[1:], round(seconds, 1)]
    shipped = OnnxRuntime().read(folder / "run" / "model.onnx")
    found = OnnxRuntime().load(shipped, 1, {}).run({shipped.inputs[0].name: inputs})[0]
    return {
        **stamp(),
        "weights_gb": weights / 1e9,
        "status": str(result.status),
        "plan": str(result.plan),
        "shipped_gb": shipped.size_bytes / 1e9,
        "largest_difference": float(np.abs(found - outputs).max() / np.abs(outputs).max()),
        "same_class": float((found.argmax(1) == outputs.argmax(1)).mean()),
        "seconds": round(seconds, 1),
        "seconds_by_stage": {
            stage: round(end - start, 1) for (stage, start), end in zip(watch.began.items(), ends, strict=True)
        },
        "load_average": os.getloadavg()[0],
        "before_gb": before / 1e9,
        "peak_of_process_gb": peak / 1e9,
        "largest_child_gb": children / 1e9,
        "peak_of_all_gb": max(watch.peak_mb.values()) / 1e3,
        "peak_of_all_by_stage_gb": {stage: round(mb / 1e3, 2) for stage, mb in watch.peak_mb.items()},
    }


if __name__ == "__main__":
    main()
