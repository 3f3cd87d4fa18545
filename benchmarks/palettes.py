"""Palettes: bytes, downloads, accuracy, latency, load time and memory of six networks.

    python benchmarks/palettes.py [--only resnet56 --only minilm] [--seconds 30]

The int8 file (static for convolutions and the MLP, dynamic for MiniLM and the LSTM) is packed with 16, 8, 6 and 4
values for each layer, the same number in each (`even`) and by what layers do to the outputs in the same bytes
(`measured`); with 4 values the ResNets are trained as well. Accuracy on all test items, observed and not certified;
nothing was chosen on them. `download` is the .acz file, `zstd` the ONNX file compressed by zstd at level 19. Latencies
are those of the product's own measurement, alternating, one thread, as shares of the int8 file's, at batch 1 and 8. A
file is loaded in a process of its own: the median time of seven, and by how much its memory grew at most meanwhile
(Linux).

Writes benchmarks/results/palettes.json and prints it. Takes about half an hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from cifar10 import HERE, stamp
from more_networks import activity, har, imagenet_sample, minilm, mnist, mnist_mlp, squeezenet, sst2
from networks import cifar_resnet
from precision_files import images
from torch import nn

from autocompress import Task
from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Setting
from autocompress.core.profile import load_profile
from autocompress.core.runtime import Example, feeds
from autocompress.core.search_space import first_options
from autocompress.core.source import Split, whole
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.download.files import download_bytes
from autocompress.run.gate import tools_without_techniques
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import Int8Dynamic, Int8Static, Palettes, PaletteTraining

RESULTS = HERE / "results" / "palettes.json"
LOADS, BATCHES, JUDGED_AT_ONCE = 7, (1, 8), 32
LOADING = """
import sys, time
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
status = lambda name: int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
begun = time.perf_counter()
if len(sys.argv) > 1:
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(1e3 * (time.perf_counter() - begun), (status("VmHWM") - before) / 1e3)
"""
Row = dict[str, Any]
Made = Callable[[], Any]
CASES: Mapping[str, tuple[Made, Callable[[], Task], type[ArtifactTechnique], Sequence[int]]] = {
    "resnet56": (lambda: cifar_resnet(56), images, Int8Static, (1,)),
    "resnet20": (lambda: cifar_resnet(20), images, Int8Static, (1,)),
    "squeezenet": (squeezenet, imagenet_sample, Int8Static, (1,)),
    "mlp": (mnist_mlp, mnist, Int8Static, (1,)),
    "lstm": (activity, har, Int8Dynamic, (1,)),
    "minilm": (minilm, sst2, Int8Dynamic, (16, 64)),
}
ENTRIES = (16, 8, 6, 4)
# networks whose palettes of four values are trained for so many steps
TRAINED = {"resnet20": 300, "resnet56": 300}


def loaded(path: Path | None) -> tuple[float, float]:
    """Milliseconds and megabytes of loading a file in a process of its own, medians."""
    given = [] if path is None else [str(path)]
    found = [
        subprocess.run([sys.executable, "-c", LOADING, *given], capture_output=True, text=True, check=True).stdout
        for _ in range(LOADS)
    ]
    milliseconds, megabytes = np.median([[float(one) for one in line.split()] for line in found], axis=0)
    return float(milliseconds), float(megabytes)


def accuracy(artifact: Artifact, split: Split) -> float:
    """The share of right answers."""
    session = OnnxRuntime().load(artifact, 1, {})
    right = [
        session.run(feed)[0].argmax(1) == np.asarray(wanted) for feed, wanted in feeds(split, artifact, JUDGED_AT_ONCE)
    ]
    return float(np.concatenate(right).mean())


def row(name: str, what: str, artifact: Artifact, unquantized: Artifact, split: Split) -> Row:
    milliseconds, megabytes = loaded(artifact.path)
    packed = len(zstandard.ZstdCompressor(level=19).compress(artifact.path.read_bytes()))
    found = {
        "network": name,
        "what": what,
        "bytes": artifact.size_bytes,
        "size": artifact.size_bytes / unquantized.size_bytes,
        "zstd": packed / unquantized.size_bytes,
        "download": download_bytes(artifact) / unquantized.size_bytes,
        "accuracy": accuracy(artifact, split),
        "load_ms": milliseconds,
        "load_mb": megabytes,
    }
    print(json.dumps(found), flush=True)
    return found


def latencies(
    quantized: Artifact, files: Mapping[str, Artifact], task: Task, seconds: float
) -> Iterator[tuple[str, str, float, list[float]]]:
    """The latency of files as shares of the quantized file's at each batch, with the quartiles of the loads."""
    profile = replace(load_profile("local"), budgets=())
    assert task.calibration is not None
    for batch in BATCHES:
        inputs, _ = next(task.calibration.first(batch).batches(batch))
        at = replace(profile, protocol=replace(profile.protocol, batch=batch))
        device = tools_without_techniques(at).device
        before, *after = device.measure([quantized, *files.values()], at, Example(inputs), seconds * (len(files) + 1))
        for what, one in zip(files, after, strict=True):
            ratios = Measurement(one.readings, before.readings).latency_ratios("p50")
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
            yield what, f"latency_at_{batch}", float(middle), [float(low), float(high)]


def rows_of(name: str, folder: Path, seconds: float) -> list[Row]:
    made, data, quantizer, groups = CASES[name]
    module, task = made(), data()
    assert isinstance(module, nn.Module)
    assert task.calibration is not None
    inputs, _ = next(task.calibration.first(2).batches(2))
    example = Example(inputs)
    unquantized = OnnxRuntime().export(module, example, folder / "float.onnx", named=True)
    judged = whole("test", task.test)

    def applied(technique: ArtifactTechnique, before: Artifact, what: str, settings: Mapping[str, Setting]) -> Artifact:
        inside = folder / what.replace(" ", "_").replace(",", "")
        inside.mkdir()
        context = Context(task, example, task.calibration, inside, unquantized=unquantized)
        return technique.apply(before, {**first_options(technique.choices), **settings}, context)

    quantized = applied(quantizer(), unquantized, "int8", {})
    rows = [row(name, "float", unquantized, unquantized, judged), row(name, "int8", quantized, unquantized, judged)]
    files: dict[str, Artifact] = {}
    for count in groups:
        for entries in ENTRIES:
            for allocation in ("even", "measured"):
                also = f", {count} groups" if count > 1 else ""
                what = f"{entries} values, {allocation}{also}"
                begun = time.monotonic()
                settings: dict[str, Setting] = {"entries": entries, "groups": count, "allocation": allocation}
                files[what] = applied(Palettes(), quantized, what, settings)
                spent = time.monotonic() - begun
                rows.append({**row(name, what, files[what], unquantized, judged), "seconds": spent})
    if name in TRAINED:
        what, begun = f"4 values, trained {TRAINED[name]} steps", time.monotonic()
        settings = {"entries": 4, "allocation": "measured", "steps": TRAINED[name], "learning_rate": 0.0005}
        made_file = applied(PaletteTraining(), quantized, what, settings)
        spent = time.monotonic() - begun
        rows.append({**row(name, what, made_file, unquantized, judged), "seconds": spent})
    timed = {what: file for what, file in files.items() if what.startswith(("16 values, even", "4 values, even"))}
    for what, figure, middle, quartiles in latencies(quantized, timed, task, seconds):
        found = next(one for one in rows if one["what"] == what)
        found |= {figure: middle, f"{figure}_quartiles": quartiles}
        print(what, figure, middle, quartiles, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CASES), default=[])
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.only or CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows = rows_of(name, Path(folder), given.seconds)
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known[name] = {**stamp(), "rows": rows}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
