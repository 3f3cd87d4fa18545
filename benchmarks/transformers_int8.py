"""Transformers and a recurrent network in int8: where static int8 loses accuracy, what it gives beside dynamic int8.

    python benchmarks/transformers_int8.py [--only minilm --only gpt2 --only lstm --only agreement] [--seconds 30]

- minilm: MiniLM-L6 on the 872 validation sentences of SST-2: every operator in static int8, kinds of operators left in
  float, prepared, and linear layers alone, beside dynamic int8.
- gpt2: a network of GPT-2's shape (4 layers of width 128), trained here for two minutes of one core on the bytes of
  Python's own language reference, as it is and with outliers in four channels of each norm before a layer. Perplexity
  on text that was not trained on; not timed.
- lstm: the LSTM of the HAR data on its 2,947 test windows.
- agreement: quantized files of MiniLM and the LSTM in onnxruntime against their simulation in torch.

Answers are taken one item at a time, as the files are served: ranges of dynamic int8 depend on the batch. Latency is
that of the product's own measurement, alternating, one thread, `--seconds` for each file. Writes
benchmarks/results/transformers_int8.json and prints it. It took about an hour beside
other work.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from cifar10 import HERE, stamp
from more_networks import activity, har, minilm, sst2
from torch import nn
from torch.nn import functional

from autocompress import Task
from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Setting
from autocompress.core.profile import load_profile
from autocompress.core.runtime import Example, feeds
from autocompress.core.search_space import first_options
from autocompress.core.source import Array, Split, whole
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.data.output_recognition import kinds_of
from autocompress.run.gate import tools_without_techniques
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.graph_module import GraphModule
from autocompress.techniques import Equalization, Int8Dynamic, Int8Static
from autocompress.training.agreement import agreement
from autocompress.training.file_training import FileModule, file_example

RESULTS = HERE / "results" / "transformers_int8.json"
ALONE: dict[str, Setting] = {"operators": "products"}
CONTEXT, BYTES, WIDTH, HEADS, LAYERS = 64, 128, 128, 4, 4
STEPS, BATCH = 500, 32
TESTED, AGREED, OUTLIER = 200, 500, 50.0
# answers of an output, and what they are worth: a list of figures by name
Judge = Callable[[Array, Array], dict[str, float]]
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Bench:
    """A float file, the items to calibrate and to judge with, and a folder for the files made from it."""

    name: str
    artifact: Artifact
    example: Example
    calibration: Split
    judged: Split
    judge: Judge
    folder: Path

    def made(
        self, technique: ArtifactTechnique, what: str, settings: Mapping[str, Setting], smooth: float = 0
    ) -> Artifact:
        """The file of a quantization, of the file prepared by SmoothQuant where `smooth` is its alpha."""
        folder = self.folder / f"{self.name}-{what}"
        folder.mkdir()
        context = Context(None, self.example, self.calibration, folder, shared=self.folder)
        before = self.artifact
        if smooth:
            before = Equalization().apply(before, {"method": "smooth", "alpha": smooth}, context)
        return technique.apply(before, {**first_options(technique.choices), **settings}, context)

    def answers(self, artifact: Artifact) -> tuple[Array, Array]:
        """The outputs of a file, item by item, and the targets."""
        session = OnnxRuntime().load(artifact, 1, {})
        found = [(session.run(feed)[0], np.asarray(right)) for feed, right in feeds(self.judged, artifact, 1)]
        return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])

    def row(self, what: str, artifact: Artifact) -> Row:
        """The figures of a file: what its answers are worth, and its share of the float file's size."""
        found, right = self.answers(artifact)
        size = artifact.size_bytes / self.artifact.size_bytes
        row = {"network": self.name, "what": what, **self.judge(found, right), "size": size}
        print(json.dumps(row), flush=True)
        return row

    def latencies(self, files: Mapping[str, Artifact], seconds: float) -> dict[str, Row]:
        """The latencies of files as shares of the float file's, with the quartiles of the loads."""
        profile = replace(load_profile("local"), budgets=())
        device = tools_without_techniques(profile).device
        before, *after = device.measure(
            [self.artifact, *files.values()], profile, self.example, seconds * (len(files) + 1)
        )
        found: dict[str, Row] = {}
        for what, one in zip(files, after, strict=True):
            ratios = Measurement(one.readings, before.readings).latency_ratios("p50")
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
            found[what] = {"latency": middle, "latency_quartiles": [low, high]}
            print(what, json.dumps(found[what]), flush=True)
        return found


def rate(found: Array, right: Array) -> dict[str, float]:
    return {"accuracy": float((found.argmax(1) == right).mean())}


def perplexity(found: Array, right: Array) -> dict[str, float]:
    loss = functional.cross_entropy(torch.from_numpy(found).flatten(0, 1), torch.from_numpy(right).flatten())
    return {"perplexity": float(loss.exp())}


def bench(name: str, module: nn.Module, calibration: Split, judged: Split, judge: Judge, folder: Path) -> Bench:
    inputs, _ = next(calibration.first(2).batches(2))
    example = Example(inputs)
    artifact = OnnxRuntime().export(module, example, folder / f"{name}.onnx".replace(" ", "_"), named=True)
    return Bench(name, artifact, example, calibration, judged, judge, folder)


def with_latencies(rows: list[Row], latencies: Mapping[str, Row]) -> list[Row]:
    return [{**row, **latencies.get(row["what"], {})} for row in rows]


def minilm_rows(folder: Path, seconds: float) -> Iterator[Row]:
    task = sst2()
    on = bench("MiniLM-L6, SST-2", minilm(), task.calibration, whole("val", task.val), rate, folder)
    static = Int8Static()
    types = {node.name: node.op_type for node in load_model(on.artifact.path).graph.node}
    names = static.quantizes(on.artifact, first_options(static.choices))
    files = {"dynamic": on.made(Int8Dynamic(), "dynamic", {})}
    for ranges in ("minmax", "percentile"):
        files[f"all operators, {ranges}"] = on.made(static, f"all-{ranges}", {"calibration": ranges})
    files["all operators, percentile, smooth 0.5"] = on.made(static, "all-smooth", {"calibration": "percentile"}, 0.5)
    for kind in ("Add", "MatMul", "LayerNormalization"):
        left = " ".join(name for name in names if types[name] == kind)
        files[f"all but {kind}, minmax"] = on.made(static, f"without-{kind}", {"in_float": left})
    left = " ".join(name for name in names if types[name] not in ("MatMul", "Gemm", "Gather"))
    files["products with int8 outputs, minmax"] = on.made(static, "outputs", {"in_float": left})
    for ranges in ("minmax", "percentile", "mse"):
        files[f"linear layers, {ranges}"] = on.made(static, f"alone-{ranges}", {**ALONE, "calibration": ranges})
    files["linear layers, int8 activations"] = on.made(static, "alone-int8", {**ALONE, "activation": "int8"})
    rows = [on.row(what, file) for what, file in {"float": on.artifact, **files}.items()]
    timed = ["dynamic", "all operators, minmax", "products with int8 outputs, minmax", "linear layers, minmax"]
    timed.append("linear layers, int8 activations")
    yield from with_latencies(rows, on.latencies({what: files[what] for what in timed}, seconds))


class Block(nn.Module):
    """Attention to what came before and a feed-forward network, each behind a norm (Radford et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Same shape as `x`, `(n, 64, 128)`; `mask` is `(64, 64)`, 0 or a large negative number."""
        n, tokens, _ = x.shape
        split = self.attention(self.norm1(x)).reshape(n, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind()
        weights = (query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + mask).softmax(-1)
        x = x + self.output((weights @ value).transpose(1, 2).reshape(n, tokens, WIDTH))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Letters(nn.Module):
    """A network of GPT-2's shape over bytes, embeddings tied; takes `(n, 64)` of them and gives `(n, 64, 128)`."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(BYTES, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        for table in (self.letters, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), -1e4).triu(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.letters(ids) + self.places.weight
        for block in self.blocks:
            x = block(x, self.mask)
        return functional.linear(self.norm(x), self.letters.weight)


def text() -> Task:
    """The topics of Python's help in pieces of 64 bytes; every tenth topic is not trained on."""
    parts: tuple[list[int], list[int]] = ([], [])
    for place, name in enumerate(sorted(topics)):
        parts[place % 10 == 0].extend(topics[name].encode("ascii", "ignore"))

    def pieces(values: list[int]) -> tuple[Array, Array]:
        count = (len(values) - 1) // CONTEXT
        ids = np.array(values, dtype=np.int64)
        first, second = (ids[shift : shift + count * CONTEXT].reshape(count, CONTEXT) for shift in (0, 1))
        return first, second

    return Task(train=pieces(parts[False]), test=pieces(parts[True]), name="help")


def trained(task: Task) -> Letters:
    torch.manual_seed(0)
    model = Letters().train()
    (ids,), targets = whole("train", task.train).source.read(range(len(task.train)))
    inputs, right = torch.from_numpy(np.asarray(ids)), torch.from_numpy(np.asarray(targets))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=STEPS)
    for step in range(STEPS):
        chosen = torch.randint(0, len(inputs), (BATCH,))
        loss = functional.cross_entropy(model(inputs[chosen]).flatten(0, 1), right[chosen].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1} of {STEPS}: loss {loss.item():.2f}", flush=True)
    return model.eval()


def with_outliers(model: Letters) -> Letters:
    """The same function: four channels of each norm before a layer are 50 times larger, and read 50 times less."""
    factors = torch.ones(WIDTH)
    factors[[5, 23, 40, 99]] = OUTLIER
    with torch.no_grad():
        for block in model.blocks:
            for norm, reader in ((block.norm1, block.attention), (block.norm2, block.up)):
                norm.weight.mul_(factors)
                norm.bias.mul_(factors)
                reader.weight.div_(factors)
    return model


def gpt2_rows(folder: Path, seconds: float) -> Iterator[Row]:
    task = text()
    model = trained(task)
    judged = whole("test", task.test).first(TESTED)
    for name, change in (("GPT-2 shape", lambda one: one), ("GPT-2 shape, outliers", with_outliers)):
        on = bench(name, change(model), task.calibration, judged, perplexity, folder)
        files: dict[str, Artifact] = {}
        for smooth in (0, 0.5, 0.75):
            also = f", smooth {smooth}" if smooth else ""
            for what, technique, settings in (
                ("dynamic", Int8Dynamic(), {}),
                ("all operators", Int8Static(), {}),
                ("linear layers", Int8Static(), ALONE),
            ):
                files[what + also] = on.made(technique, f"{what}-{smooth}", settings, smooth)
        yield from (on.row(what, file) for what, file in {"float": on.artifact, **files}.items())


def lstm_rows(folder: Path, seconds: float) -> Iterator[Row]:
    task = har()
    on = bench("LSTM, HAR", activity(), task.calibration, whole("test", task.test), rate, folder)
    files = {
        "dynamic": on.made(Int8Dynamic(), "dynamic", {}),
        "dynamic, one scale": on.made(Int8Dynamic(), "one", {"per_channel": False}),
    }
    rows = [on.row(what, file) for what, file in {"float": on.artifact, **files}.items()]
    yield from with_latencies(rows, on.latencies(files, seconds))


def agreement_rows(folder: Path, seconds: float) -> Iterator[Row]:
    task = replace(sst2(), loss=functional.cross_entropy)
    on = bench("MiniLM-L6, SST-2", minilm(), task.calibration, whole("val", task.val), rate, folder)
    yield agreed(on, "linear layers, minmax", Int8Static(), ALONE, task)
    yield agreed(on, "all operators, minmax", Int8Static(), {}, task)
    yield agreed(on, "dynamic", Int8Dynamic(), {}, task)
    task = replace(har(), loss=functional.cross_entropy)
    on = bench("LSTM, HAR", activity(), task.calibration, whole("test", task.test).first(AGREED), rate, folder)
    yield agreed(on, "dynamic", Int8Dynamic(), {}, task)


def agreed(on: Bench, what: str, technique: ArtifactTechnique, settings: Mapping[str, Setting], task: Task) -> Row:
    """How far a file and its simulation agree."""
    file = on.made(technique, f"agreement-{what}", settings)
    graph = GraphModule(load_model(file.path))
    module = FileModule(graph, on.example)
    found = agreement(graph, file, on.judged, task, kinds_of(file_example(on.example, module), module, task))
    row = {"network": on.name, "what": what, "same": found.same, "points": found.apart, "items": found.items}
    print(json.dumps(row), flush=True)
    return row


PARTS: Mapping[str, Callable[[Path, float], Iterator[Row]]] = {
    "minilm": minilm_rows,
    "gpt2": gpt2_rows,
    "lstm": lstm_rows,
    "agreement": agreement_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS), default=[])
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for part in given.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            rows = list(PARTS[part](Path(folder), given.seconds))
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known[part] = {**stamp(), "rows": rows}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
