"""Whether differences in latency can be believed: a file against itself, and against one that is 3 % slower.

    python benchmarks/latency_trust.py [--comparisons 200] [--tries 20]

A false difference is a 95 % interval of the ratio, after 2.5 s, that does not hold 1 where a file is compared
with itself. A file made slower on purpose is told apart when the interval lies above 1 after 5 s of measuring. Beside
them the same blocks of files that stay loaded, and what one would write in five minutes: the means of 100 calls, one
after the other, slower when they differ by more than 1.5 %. All of it again beside a process that keeps a core busy.
Writes benchmarks/results/latency_trust.json. About three quarters of an hour.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cifar10 import stamp
from networks import cifar_resnet
from onnx import helper

from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.profile import load_profile
from autocompress.core.runtime import Example
from autocompress.devices import LocalDevice, alternation
from autocompress.runtimes import OnnxRuntime
from autocompress.statistics.bounds import median_bounds

RESULTS = Path(__file__).parent / "results" / "latency_trust.json"
SECONDS, SAME_SECONDS = 5.0, 2.5
# a comparison may take no longer than it says, however noisy the machine is
alternation.PATIENCE = 1.0
SLOWER = 0.03
NAIVE_CALLS, NAIVE_DIFFERENCE = 100, 0.015


def busy() -> None:
    """Keeps a core occupied."""
    while True:
        sum(i * i for i in range(10_000))


@contextmanager
def neighbour(*, there: bool) -> Iterator[None]:
    """With or without a busy process beside."""
    process = multiprocessing.Process(target=busy, daemon=True) if there else None
    if process:
        process.start()
    try:
        yield
    finally:
        if process:
            process.kill()
            process.join()


def slowed(artifact: Artifact, path: Path, repeats: int) -> Artifact:
    """The same network with `repeats` products of matrices beside it, whose result is added with weight 0."""
    model = onnx.load(artifact.path)
    graph = model.graph
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["before_the_brake" if name == output else name for name in node.output]
    size = 64
    graph.initializer.append(onnx.numpy_helper.from_array(np.eye(size, dtype=np.float32)[None] * 0.5, "brake_weight"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1,), np.float32), "brake_zero"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 1], np.int64), "brake_shape"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "brake_index"))
    graph.node.append(helper.make_node("Gather", ["before_the_brake", "brake_index"], ["brake_row"], axis=0))
    graph.node.append(helper.make_node("ReduceSum", ["brake_row"], ["brake_sum"], keepdims=0))
    graph.node.append(helper.make_node("Reshape", ["brake_sum", "brake_shape"], ["brake_seed"]))
    last = "brake_start"
    graph.node.append(helper.make_node("Add", ["brake_weight", "brake_seed"], [last]))
    for i in range(repeats):
        graph.node.append(helper.make_node("MatMul", [last, "brake_weight"], [f"brake_{i}"]))
        last = f"brake_{i}"
    graph.node.append(helper.make_node("ReduceMax", [last], ["brake_most"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["brake_most", "brake_zero"], ["brake_nothing"]))
    graph.node.append(helper.make_node("Add", ["before_the_brake", "brake_nothing"], [output]))
    onnx.save(model, path)
    return OnnxRuntime().read(path)


def ratio(before: Artifact, after: Artifact, seconds: float) -> tuple[float, float, float, float]:
    """Median, bounds, and seconds taken."""
    profile = load_profile("local")
    profile = replace(profile, budgets=(), protocol=replace(profile.protocol, precision=1e-6))
    example = Example((np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32),))
    start = time.monotonic()
    first, second = LocalDevice(OnnxRuntime()).measure([before, after], profile, example, seconds)
    if alternation.MOST_LOADS == 1:
        # as meters mostly do it: the blocks of one load as if they were independent
        second_ms, first_ms = (one.readings["latency_ms"].block_statistic("p50") for one in (second, first))
        ratios = second_ms / first_ms
    else:
        ratios = Measurement(second.readings, first.readings).latency_ratios("p50")
    low, high = median_bounds(ratios, 0.025)
    return float(np.median(ratios)), low, high, time.monotonic() - start


@contextmanager
def staying_loaded() -> Iterator[None]:
    """A single load, as meters mostly have it."""
    most = alternation.MOST_LOADS
    alternation.MOST_LOADS = 1
    try:
        yield
    finally:
        alternation.MOST_LOADS = most


def naive(before: Artifact, after: Artifact) -> float:
    """The ratio of two means of 100 calls, one file after the other."""
    means = []
    for artifact in (before, after):
        session = OnnxRuntime().load(artifact, 1, {})
        feed = {artifact.inputs[0].name: np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}
        session.run(feed)
        start = time.perf_counter()
        for _ in range(NAIVE_CALLS):
            session.run(feed)
        means.append(time.perf_counter() - start)
    return means[1] / means[0]


def false_differences(found: Sequence[tuple[float, float, float, float]]) -> float:
    """The share of intervals that do not hold 1."""
    return float(np.mean([low > 1 or high < 1 for _, low, high, _ in found]))


def compared(before: Artifact, slow: Artifact, comparisons: int, tries: int) -> dict[str, Any]:
    same = [ratio(before, before, SAME_SECONDS) for _ in range(comparisons)]
    other = [ratio(before, slow, SECONDS) for _ in range(tries)]
    with staying_loaded():
        loaded = [ratio(before, before, SAME_SECONDS) for _ in range(comparisons // 5)]
    naive_same = [naive(before, before) for _ in range(comparisons)]
    naive_other = [naive(before, slow) for _ in range(tries)]
    return {
        "false_differences": false_differences(same),
        "largest_error": float(np.max([abs(value - 1) for value, *_ in same])),
        "half_width": float(np.median([(high - low) / 2 for _, low, high, _ in same])),
        "told_apart": float(np.mean([low > 1 for _, low, _, _ in other])),
        "slower_by": float(np.median([value for value, *_ in other])) - 1,
        "stay_loaded_false_differences": false_differences(loaded),
        "seconds": float(np.max([seconds for *_, seconds in [*same, *other]])),
        "naive_false_differences": float(np.mean([abs(value - 1) > NAIVE_DIFFERENCE for value in naive_same])),
        "naive_told_apart": float(np.mean([value > 1 + NAIVE_DIFFERENCE for value in naive_other])),
    }


def brake(artifact: Artifact, folder: Path) -> Artifact:
    """A file that is about 3 % slower: the number of products is found by trying."""
    repeats = 4
    while True:
        slow = slowed(artifact, folder / f"slow{repeats}.onnx", repeats)
        value, *_ = ratio(artifact, slow, SECONDS)
        if value >= 1 + SLOWER - 0.003:
            return slow
        repeats += max(1, round(repeats * (SLOWER / max(value - 1, 0.004) - 1) / 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--tries", type=int, default=20)
    arguments = parser.parse_args()
    report: dict[str, Any] = {**stamp(), "comparisons": arguments.comparisons, "tries": arguments.tries}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        example = Example((np.zeros((1, 3, 32, 32), np.float32),))
        before = OnnxRuntime().export(cifar_resnet(20), example, folder / "resnet20.onnx")
        slow = brake(before, folder)
        print(
            "| beside | false differences | half width | 3 % told apart | staying loaded: false | naive: false "
            "| naive: told apart |\n|---|---|---|---|---|---|---|"
        )
        for beside, there in (("nothing", False), ("a busy process", True)):
            with neighbour(there=there):
                row = compared(before, slow, arguments.comparisons, arguments.tries)
            report[beside] = row
            print(
                f"| {beside} | {row['false_differences']:.3f} | {row['half_width']:.2%} | {row['told_apart']:.2f} "
                f"| {row['stay_loaded_false_differences']:.3f} | {row['naive_false_differences']:.3f} "
                f"| {row['naive_told_apart']:.2f} |",
                flush=True,
            )
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
