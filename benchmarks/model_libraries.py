"""Networks of transformers, timm and torchvision: free axes, parity at several sizes, and an int8 run each.

    python benchmarks/model_libraries.py [--only BERT --only ViT] [--no-run] [--again]

The plan is the search space that the run begins with, refusals included. Small configurations with random weights, so
nothing is said of accuracy. Each network runs in a process of its own. Writes benchmarks/results/model_libraries.json
after each network, leaves out what is there already, and prints the table of docs/model-libraries.md. About half an
hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cifar10 import HERE, stamp
from library_networks import NETWORKS, LibraryNetwork
from torch import nn

from autocompress import autocompress
from autocompress.core.artifact import Artifact
from autocompress.core.dynamic_axes import DynamicAxes
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile, load_profile
from autocompress.core.runtime import Example
from autocompress.core.source import ArraySource, whole
from autocompress.core.targets import unlabelled
from autocompress.data.module import call
from autocompress.data.preparation import prepared
from autocompress.errors import AutocompressError
from autocompress.runtimes import OnnxRuntime
from autocompress.training.batch_norm import reestimate_batch_norm

RESULTS = HERE / "results" / "model_libraries.json"
BATCHES = (1, 3)
# float16 takes a little more than half
BUDGETS: dict[str, float | str] = {"size_mb": "0.49x", "latency_ms": "50x"}
# seconds of a run, and of one measurement in it: nothing is said of latencies here
RUN_SECONDS, MEASURING_SECONDS = 300, 1.0
SECONDS = 900
# largest relative difference that the export itself allows
TOLERANCE = 2e-3


def example_of(network: LibraryNetwork) -> Example:
    inputs = network.inputs()
    declared = dict.fromkeys(network.axes, "") if network.axes else None
    return Example(inputs, network.outputs, DynamicAxes(declared))


def dynamic_of(network: LibraryNetwork) -> dict[str, list[int]] | None:
    declared: dict[str, list[int]] = {}
    for name, place in network.axes:
        declared.setdefault(name, []).append(place)
    return declared or None


def tried(do: Callable[[], Any]) -> tuple[Any, str]:
    """What a step gives, or its refusal in one line."""
    try:
        return do(), ""
    except AutocompressError as error:
        return None, " ".join(str(error).split())[:400]


def exported(module: nn.Module, network: LibraryNetwork, path: Path) -> tuple[Artifact | None, str]:
    """The file with the asked axes free, else with those that the policy finds, with the reason."""
    example = example_of(network)
    artifact, refusal = tried(lambda: OnnxRuntime().export(module, example, path))
    if artifact is None and network.axes:
        free = Example(example.inputs, example.outputs)
        artifact, further = tried(lambda: OnnxRuntime().export(module, free, path))
        refusal = refusal if artifact else f"{refusal} {further}"
    return artifact, refusal


def parity(module: nn.Module, network: LibraryNetwork, artifact: Artifact) -> tuple[list[str], float, list[str]]:
    """The sizes at which file and module agree, the largest relative difference, and refusals."""
    session = OnnxRuntime().load(artifact, 1, {})
    free = {(spec.name, place) for spec in artifact.inputs for place in spec.free_axes}
    agreed, refused, largest = [], [], 0.0
    for sizes in network.sizes:
        label = "x".join(map(str, dict.fromkeys(sizes.values())))
        moved = {axis for axis, size in sizes.items() if network.inputs()[axis[0]].shape[axis[1]] != size}
        if not moved <= free:
            refused.append(f"{label}: fixed")
            continue
        for batch in BATCHES:
            example = example_of(network).with_sizes(sizes).with_batch(batch)
            gap, refusal = tried(partial(difference, module, session, artifact, example))
            if gap is None or gap > TOLERANCE:
                refused.append(f"{label}, batch {batch}: {refusal or f'differs by {gap:.1g}'}")
                continue
            agreed.append(f"{label}, batch {batch}")
            largest = max(largest, gap)
    return agreed, largest, refused


def difference(module: nn.Module, session: Any, artifact: Artifact, example: Example) -> float:
    found = session.run({spec.name: example.arrays[spec.name] for spec in artifact.inputs})
    gaps = []
    for wanted, got in zip(call(module, example).values(), found, strict=True):
        values = wanted.numpy()
        gaps.append(float(np.abs(values - got).max() / max(np.abs(values).max(), 1e-6)))
    return max(gaps)


def row_of(name: str, *, with_run: bool) -> dict[str, Any]:
    network = NETWORKS[name]
    began = time.time()
    row: dict[str, Any] = {"name": name, "asked": [f"{axis}:{place}" for axis, place in network.axes]}
    with tempfile.TemporaryDirectory() as folder:
        # as a run prepares it: detectors end before non-maximum suppression
        module, _ = prepared(network.build())
        example = example_of(network)
        # with the statistics of a new network, random weights shrink their inputs to nothing from layer to layer
        reestimate_batch_norm(module, whole("example", ArraySource(example.inputs, unlabelled(example.batch))), example)
        row["parameters"] = sum(weight.numel() for weight in module.parameters())
        artifact, row["refusal"] = exported(module, network, Path(folder) / "model.onnx")
        if artifact is None:
            return row | {"seconds": time.time() - began}
        row["free"] = free_of(artifact)
        row["agreed"], row["largest_difference"], row["sizes_refused"] = parity(module, network, artifact)
        if not with_run:
            return row | {"seconds": time.time() - began}
        dynamic: Mapping[str, list[int]] | None = dynamic_of(network) if not row["refusal"] else None
        given: dict[str, Any] = {"inputs": network.inputs(), "outputs": network.outputs, "dynamic": dynamic}
        out = Path(folder) / "run"
        result, row["run_refusal"] = tried(
            lambda: autocompress(module, briefly(), budgets=BUDGETS, out=out, max_time=RUN_SECONDS, **given)
        )
        if result is not None:
            row |= result_of(result)
    return row | {"seconds": time.time() - began}


def briefly() -> Profile:
    local = load_profile("local")
    return replace(local, protocol=replace(local.protocol, max_seconds=MEASURING_SECONDS))


def free_of(artifact: Artifact) -> list[str]:
    return [f"{spec.name}:{place} {spec.axis(place)}" for spec in artifact.inputs for place in spec.free_axes]


def result_of(result: Any) -> dict[str, Any]:
    findings = {finding.budget.metric: finding.to_json() for finding in result.verdict.findings}
    plan: Plan | None = result.plan
    space = result.search_space
    return {
        "recipes": [recipe.name for recipe in space.recipes],
        "refused": {what: str(why) for what, why in space.refusals.items()},
        "status": str(result.status),
        "plan": str(plan) if plan else "",
        "size": findings.get("size_mb", {}).get("value"),
        "latency": findings.get("latency_ms", {}).get("value"),
        "free_in_result": free_of(result.artifact) if result.artifact else [],
    }


def line_of(row: dict[str, Any]) -> str:
    """A row of the table in the docs."""
    names = dict.fromkeys(one.split()[-1] for one in row.get("free", []))
    agreed = list(dict.fromkeys(one.split(",")[0] for one in row.get("agreed", [])))
    reasons = [row["refusal"], *row.get("sizes_refused", []), row.get("run_refusal", "")]
    plan = row.get("plan", "").split("(")[0]
    size = f"{row['size']:.2f}x" if row.get("size") else "-"
    cells = (
        row["name"], ", ".join(names) or "none", ", ".join(agreed) or "-",
        f"{plan} {size}" if plan else "-", "; ".join(dict.fromkeys(filter(None, reasons))).replace("|", "/") or "",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(NETWORKS), default=[])
    parser.add_argument("--no-run", action="store_true", help="files and their parity alone")
    parser.add_argument("--again", action="store_true", help="also networks whose results are there")
    parser.add_argument("--row", choices=sorted(NETWORKS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(row_of(options.row, with_run=not options.no_run)))
        return
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    known = {
        row["name"] for row in rows if options.no_run or row["refusal"] or "status" in row or row.get("run_refusal")
    }
    for name in options.only or list(NETWORKS):
        if name in known and not options.again:
            continue
        command = [sys.executable, __file__, "--row", name, *(["--no-run"] if options.no_run else [])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        rows = [one for one in rows if one["name"] != name] + [row]
        RESULTS.write_text(json.dumps({**stamp(), "rows": rows}, indent=1) + "\n")
        print(line_of(row), flush=True)
    for row in sorted(rows, key=lambda row: list(NETWORKS).index(row["name"])):
        print(line_of(row))


if __name__ == "__main__":
    main()
