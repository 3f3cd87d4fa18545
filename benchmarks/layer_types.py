"""What layers that leave int8 cost in float32, in float16 and with 16-bit activations: latency, size, accuracy.

    python benchmarks/layer_types.py [--only mobilenet_v2]

Static int8 per channel of the networks of depthwise_networks.py, with the layers in float that sensitivity names (the
largest of its nested sets). The same layers then have weights in float16 that are cast to float32 when the file is
loaded; compute in float16 altogether; or stay quantized with int8 weights and activations of 16 bits (uint16, opset 21,
by onnxruntime's quantizer with its conversions between 8 and 16 bits). Accuracy is that of the 6,648 test images that
chose nothing, as in precision.py, whose float and int8 files it uses. Operators are those of onnxruntime's optimized
graph. Rows go to benchmarks/results/layer_types.json. About five minutes of one core.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from cifar10 import HERE
from depthwise_networks import NETWORKS, depthwise_network
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.execution_providers.qnn.mixed_precision_overrides_utils import (
    MixedPrecisionTensorQuantOverridesFixer,
)
from onnxruntime.quantization.tensor_quant_overrides import TensorQuantOverridesHelper
from precision import int8
from precision_files import FILES, Bench, images
from precision_rows import ratio, stamped

from autocompress.core.artifact import Artifact
from autocompress.core.runtime import feeds
from autocompress.core.sensitivity import IN_FLOAT
from autocompress.core.source import Split
from autocompress.runtimes.node_names import nodes_named
from autocompress.runtimes.onnx_file import compact, load_model, save_model

RESULTS = HERE / "results" / "layer_types.json"
CASES = ("mobilenet_v2", "mobilenet_v3")
CALIBRATION_ITEMS = 256


class Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Calibration items for onnxruntime's quantizer, batch by batch."""

    def __init__(self, split: Split, artifact: Artifact) -> None:
        self._feeds = (feed for feed, _ in feeds(split.first(CALIBRATION_ITEMS), artifact, 16))

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._feeds, None)


def float_layers(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The layers of a quantized file whose weights are in float."""
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in stored:
            yield node


def in_half(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    for tensor in graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


def stored_in_half(model: onnx.ModelProto) -> None:
    """Store the float layers' weights in float16, with a cast that is computed when the file is loaded."""
    graph = model.graph
    layers = list(float_layers(graph))
    weights = [node.input[1] for node in layers]
    in_half(graph, weights)
    for node in layers:
        graph.node.insert(
            0, helper.make_node("Cast", [node.input[1]], [f"{node.input[1]}_float"], to=TensorProto.FLOAT)
        )
        node.input[1] += "_float"


def computed_in_half(model: onnx.ModelProto) -> None:
    """Let the float layers compute in float16, between casts of what they read and give."""
    graph = model.graph
    layers = list(float_layers(graph))
    in_half(graph, [name for node in layers for name in node.input[1:]])
    for node in layers:
        place, given, made = list(graph.node).index(node), node.input[0], node.output[0]
        node.input[0], node.output[0] = f"{made}_read_half", f"{made}_half"
        graph.node.insert(place + 1, helper.make_node("Cast", [node.output[0]], [made], to=TensorProto.FLOAT))
        graph.node.insert(place, helper.make_node("Cast", [given], [node.input[0]], to=TensorProto.FLOAT16))


def with_wide_activations(bench: Bench, layers: Sequence[str], destination: Path) -> None:
    """Write the int8 file in which these layers read and give 16 bits."""
    model = load_model(bench.start.path)
    named = nodes_named(model.graph)
    overrides = {named[name].output[0]: [{"quant_type": QuantType.QUInt16}] for name in layers}
    helped = TensorQuantOverridesHelper(overrides)
    fixer = MixedPrecisionTensorQuantOverridesFixer.create_from_model(helped, model, QuantType.QUInt8)
    fixer.apply(QuantType.QUInt8, default_activation_symmetric=False)
    assert bench.task.calibration is not None
    quantize_static(
        str(bench.start.path),
        str(destination),
        Batches(bench.task.calibration, bench.start),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"TensorQuantOverrides": helped.get_dict()},
    )


def variants(bench: Bench, layers: Sequence[str]) -> Iterator[tuple[str, Artifact]]:
    """The files by what their layers are in."""
    plain = int8("per channel")
    yield "int8", bench.made((plain,))[0]
    settings = {**plain.settings, IN_FLOAT.name: " ".join(layers)}
    in_float, _ = bench.made((type(plain)(plain.technique, plain.stage, settings),))
    yield "float32", in_float
    ways: tuple[tuple[str, Callable[[onnx.ModelProto], None]], ...] = (
        ("float32, stored in float16", stored_in_half),
        ("float16", computed_in_half),
    )
    for name, change in ways:
        model = load_model(in_float.path)
        change(model)
        yield name, save_model(compact(model), bench.folder / f"{name.replace(' ', '_')}.onnx")
    written = bench.folder / "wide.onnx"
    with_wide_activations(bench, layers, written)
    yield "16-bit activations", save_model(compact(load_model(written)), bench.folder / "16_bits.onnx")


def operators(artifact: Artifact, folder: Path) -> dict[str, int]:
    """How often each operator that converts or computes is in the runtime's optimized graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])
    count = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    told = ("QLinearConv", "Conv", "FusedConv", "Cast", "QuantizeLinear", "DequantizeLinear")
    return {name: count[name] for name in told if count[name]}


def answers(artifact: Artifact, split: Split) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0].argmax(1) for feed, _ in feeds(split, artifact, 256)])


def rows(case: str) -> Iterator[dict[str, Any]]:
    bench = Bench(depthwise_network(case), images(), FILES / case)
    layers = bench.sensitivity(int8("per channel")).mixed[-1].layers
    files = dict(variants(bench, layers))
    holdout = bench.task.holdout
    assert holdout is not None
    before = answers(bench.baseline, holdout)
    measured = bench.latencies(files)
    for name, artifact in files.items():
        timed = measured[name]
        yield {
            **stamped(case, name),
            "layers": list(layers),
            "size_ratio": artifact.size_bytes / bench.baseline.size_bytes,
            "to_float": ratio(timed, measured["float"]),
            "to_int8": ratio(timed, measured["int8"]),
            "to_float32": ratio(timed, measured["float32"]),
            "loads": timed.conditions.loads if timed.conditions else None,
            **bench.judged(artifact, holdout),
            "same_answers": float((answers(artifact, holdout) == before).mean()),
            "operators": operators(artifact, bench.folder),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(NETWORKS), default=[])
    given = parser.parse_args().only or CASES
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    found = [row for row in known if row["case"] not in given]
    for case in given:
        for row in rows(case):
            found.append(row)
            print(json.dumps(row), flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
