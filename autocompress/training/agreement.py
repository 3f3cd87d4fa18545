"""Agreement of a trained simulation with its file, and the layers in which they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import tee

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from autocompress.core.artifact import Artifact
from autocompress.core.output_kinds import OF_CLASSES, OutputFact
from autocompress.core.outputs import as_given
from autocompress.core.runtime import Example, feeds
from autocompress.core.source import Array, Split
from autocompress.core.targets import Targets
from autocompress.core.task import Task
from autocompress.data.named_outputs import floating, named_outputs
from autocompress.data.output_divergence import distance, rows_of
from autocompress.errors import TechniqueError
from autocompress.runtimes.float_nodes import QUANTIZE
from autocompress.runtimes.node_names import layer_of
from autocompress.runtimes.observed_values import observed
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.graph_module import WITH_WEIGHT, GraphModule
from autocompress.simulation.integer_operators import DYNAMIC_QUANTIZE

BATCH = 64
# of the answers, so many have to be the same, and the score may differ by so many points
SAME_ANSWERS, POINTS = 0.995, 0.2
# the largest divergence of outputs that are no classes, over the spread of the module's
FAR = 1 - SAME_ANSWERS
NAMED_LAYERS = 3
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of a file and of its simulation agree on `items` items.

    `same` is the share of equal answers over `answers` choices of a class, None where no output has classes; `apart`
    the difference of the two scores in points, None where the score is no rate; `far` the largest divergence of the
    other outputs over their spread, None where there is none.
    """

    items: int
    answers: int
    same: float | None
    apart: float | None
    far: float | None

    @property
    def holds(self) -> bool:
        """True when they agree on 99.5 % of the answers (all but one of fewer than 200) and within 0.2 points."""
        allowed = max(1, math.floor((1 - SAME_ANSWERS) * self.answers))
        answers = self.same is None or round((1 - self.same) * self.answers) <= allowed
        # with few items a single one is more points than that
        score = self.apart is None or self.apart <= max(POINTS, 100 / self.items) + 1e-9
        return answers and score and (self.far is None or self.far <= FAR)

    def __str__(self) -> str:
        parts = [] if self.same is None else [f"{self.same:.2%} of {self.answers} answers are the same"]
        parts += [] if self.apart is None else [f"the scores are {self.apart:.2f} points apart"]
        parts += [] if self.far is None else [f"outputs diverge by {self.far:.2%} of their spread"]
        return ", ".join(parts)


def agreement(
    graph: GraphModule, artifact: Artifact, split: Split, task: Task, kinds: Mapping[str, OutputFact]
) -> Agreement:
    """Compare a file in onnxruntime with its simulation on a split; `kinds` are those of its outputs.

    The score is compared where it is a rate. Where ranges are those of a call, items are compared one by one: what
    stands beside an item in a batch makes its steps coarser.
    """
    example, names = Example({}), [spec.name for spec in artifact.outputs]
    answers = _Answers(kinds), _Answers(kinds)
    size = split.rows_within(1 if graph.has_dynamic_ranges else BATCH)
    given, run = tee(feeds(split, artifact, size))
    values_of_batches = observed(artifact, names, (feed for feed, _ in run))
    for (feed, targets), values in zip(given, values_of_batches, strict=True):
        found = {name: torch.from_numpy(values[name]) for name in names}
        for one, outputs in zip(answers, (found, simulated(graph, feed, names)), strict=True):
            one.add(named_outputs(outputs, example), task, targets)
    file, module = answers
    pairs = list(zip(file.classes, module.classes, strict=True))
    count = sum(one.size for one, _ in pairs)
    same = sum(int((one == other).sum()) for one, other in pairs)
    apart = 100 * abs(task.value(file.all_scores) - task.value(module.all_scores)) if task.score_is_rate else None
    return Agreement(len(split), count, same / count if count else None, apart, _far(file, module))


@dataclass(eq=False)
class _Answers:
    """What a file or a module gives, batch by batch: classes, other outputs by name, scores."""

    kinds: Mapping[str, OutputFact]
    classes: list[Array] = field(default_factory=list)
    others: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    scores: list[Array] = field(default_factory=list)

    @property
    def all_scores(self) -> Array:
        return np.concatenate(self.scores)

    def add(self, outputs: Mapping[str, torch.Tensor], task: Task, targets: Targets) -> None:
        for name, values in floating(outputs).items():
            fact = self.kinds[name]
            rows = rows_of(fact, values)
            if fact.kind in OF_CLASSES:
                self.classes.append(rows.argmax(1).numpy())
            else:
                self.others.setdefault(name, []).append(rows)
        if task.score_is_rate:
            arrays = {name: values.numpy() for name, values in outputs.items()}
            self.scores.append(task.scores(as_given(arrays, lambda array: array.dtype.kind == "f"), targets))


def _far(file: _Answers, module: _Answers) -> float | None:
    distances = []
    for name, rows in module.others.items():
        found, wanted = torch.cat(file.others[name]), torch.cat(rows)
        one = distance(file.kinds[name].kind, found, wanted, relative=True)
        distances += [] if one is None else [float(one)]
    return max(distances, default=None)


@torch.no_grad()
def simulated(graph: GraphModule, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tensors of the simulation for a batch, by their names in the graph."""
    return graph.compute({name: torch.from_numpy(array) for name, array in feed.items()}, names)


@dataclass(frozen=True)
class LayerGap:
    """How far the rounded activations behind a layer are apart: the mean difference in levels."""

    name: str
    levels: float


def layer_gaps(
    graph: GraphModule, artifact: Artifact, feed: Mapping[str, Array], unquantized: Artifact | None = None
) -> list[LayerGap]:
    """The gaps between a file in onnxruntime and its simulation on one batch, the largest first.

    Compared are the whole numbers that QuantizeLinear and DynamicQuantizeLinear nodes give. Layers have the names of
    the float file where it has them.
    """
    model = load_model(artifact.path).graph
    stored = {tensor.name: tensor for tensor in model.initializer}
    labels = _labels(model, load_model(unquantized.path, with_weights=False).graph if unquantized else None)
    places = [place for place, node in enumerate(model.node) if node.op_type in (QUANTIZE, DYNAMIC_QUANTIZE)]
    names = [model.node[place].output[0] for place in places]
    found, wanted = next(observed(artifact, names, [feed])), simulated(graph, feed, names)
    gaps = []
    for place, name in zip(places, names, strict=True):
        node = model.node[place]
        # those of a call are counted from the lowest level
        zero = float(numpy_helper.to_array(stored[node.input[2]]).reshape(-1)[0]) if node.op_type == QUANTIZE else 0.0
        apart = found[name].astype(np.float64) - zero - wanted[name].numpy()
        gaps.append(LayerGap(labels[place], float(np.abs(apart).mean())))
    return sorted(gaps, key=lambda gap: -gap.levels)


def _labels(graph: onnx.GraphProto, named: onnx.GraphProto | None) -> dict[int, str]:
    """A name for each node: that of the layer which it comes from, else its operator and number.

    Layers keep their order in quantization, so they are those of the float graph where that has as many.
    """
    weighted = [place for place, node in enumerate(graph.node) if node.op_type in WITH_WEIGHT]
    names = [layer_of(node) for node in (named.node if named else ()) if node.op_type in WITH_WEIGHT]
    own = [f"{graph.node[place].op_type} {number}" for number, place in enumerate(weighted, start=1)]
    found = dict(zip(weighted, names if len(names) == len(own) and all(names) else own, strict=True))
    producers = {name: place for place, node in enumerate(graph.node) for name in node.output}
    for place, node in enumerate(graph.node):
        before = next((producers[name] for name in node.input if name in producers), None)
        found.setdefault(place, found[before] if before is not None else f"the input {node.input[0]}")
    return found


def require_agreement(found: Agreement, gaps: Sequence[LayerGap], where: str) -> None:
    """Raise TechniqueError, with the layers that differ most, where file and simulation do not agree."""
    if found.holds:
        return
    worst = ", ".join(f"{gap.name} ({gap.levels:.2f} levels)" for gap in gaps[:NAMED_LAYERS])
    raise TechniqueError(
        f"the file does not compute what was trained: {found} on {found.items} items. "
        f"Its activations differ most behind {worst}.",
        where=where,
        hint="Leave these layers in float (keep_float), or use the quantized file without training.",
    )
