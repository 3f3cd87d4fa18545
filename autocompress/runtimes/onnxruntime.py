"""The runtime ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import torch

from autocompress.core.artifact import Artifact
from autocompress.core.dynamic_axes import Axis
from autocompress.core.runtime import Contents, Example, Runtime, Session, align
from autocompress.core.source import Array
from autocompress.data.module import call, first_line
from autocompress.errors import DataError, ExportError, ModelError, RuntimeFailureError
from autocompress.runtimes.external_weights import values_of
from autocompress.runtimes.free_axes import (
    at_other_sizes,
    axes_by_name,
    is_far,
    is_varying,
    movable_axes,
    name_axes,
    require_undeclared,
    without_ones,
)
from autocompress.runtimes.node_names import node_names, with_names, without_names
from autocompress.runtimes.onnx_export import WRAPPER, export_graph, nodes_of
from autocompress.runtimes.onnx_file import (
    compact,
    describe,
    load_model,
    mark_float,
    open_model,
    save_model,
    weight_labels,
)
from autocompress.runtimes.palette_reading import without_palettes
from autocompress.runtimes.traced_export import other_values, sentence_on, traced_graph
from autocompress.system.scratch import scratch

# largest change of an output by the export, as a share of its own largest value: float32 sums run in another order
PARITY_TOLERANCE = 2e-3
# largest share of values that may differ in outputs of whole numbers or truth values, such as the class of every pixel:
# where two are as good as equal, rounding decides
DIFFERING = 0.01
# number of calls whose operators are timed, and the seconds after which fewer will do
PROFILED_CALLS, PROFILED_SECONDS = 20, 1.0


class OnnxSession(Session):
    """A model loaded in ONNX Runtime.

    With `times_to`, the times of its operators are written to a file whose name begins with it.
    """

    def __init__(
        self, artifact: Artifact, threads: int, options: Mapping[str, str], times_to: Path | None = None
    ) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._path = str(artifact.path)
        if times_to is not None:
            settings.enable_profiling, settings.profile_file_prefix = True, str(times_to)
        try:
            for key, value in options.items():
                settings.add_session_config_entry(key, value)
            self._session = onnxruntime.InferenceSession(self._path, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises types of its own, without a common base
            raise RuntimeFailureError(f"is refused by onnxruntime: {first_line(error)}", where=self._path) from error

    def run(self, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
        """See `Session.run`."""
        try:
            outputs = self._session.run(None, dict(inputs))
        except Exception as error:  # onnxruntime raises types of its own, without a common base
            raise RuntimeFailureError(f"fails in onnxruntime: {first_line(error)}", where=self._path) from error
        return tuple(np.asarray(output) for output in outputs)

    def end_profiling(self) -> str:
        """Stop profiling and return the file with the times of all operators since the session was made."""
        return str(self._session.end_profiling())


@dataclass(frozen=True)
class _Target:
    """The file that an export writes: the layers that stay in float, and whether nodes are named."""

    path: Path
    keep_float: tuple[str, ...]
    named: bool


class OnnxRuntime(Runtime):
    """ONNX Runtime's CPU execution provider; artifacts are ONNX files, above 2 GB with a file of weights."""

    name: ClassVar[str] = "onnxruntime"
    format: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    meter_backend: ClassVar[Path] = Path(__file__).parents[1] / "devices" / "meter" / "backends" / "onnxruntime.py"

    def export(
        self,
        module: torch.nn.Module,
        example: Example,
        destination: Path,
        keep_float: Sequence[str] = (),
        *,
        named: bool = False,
    ) -> Artifact:
        """See `Runtime.export`."""
        target = _Target(destination, tuple(keep_float), named)
        expected = call(module, example)
        axes = movable_axes(module, example)
        while axes:
            try:
                artifact = _export(module, example, tuple(expected), target, axes)
                self._require_parity(artifact, module, example, expected)
                differing = self._differing_axes(artifact, module, example)
            except (ExportError, RuntimeFailureError) as error:
                require_undeclared(example, error)
                break
            if not differing:
                return artifact
            axes = tuple(axis for axis in axes if axis not in differing)
        try:
            artifact = _export(module, example, tuple(expected), target)
        except ExportError as error:
            return self._traced(module, example, expected, target, error)
        self._require_parity(artifact, module, example, expected)
        return artifact

    def _traced(
        self,
        module: torch.nn.Module,
        example: Example,
        expected: Mapping[str, torch.Tensor],
        target: _Target,
        failure: ExportError,
    ) -> Artifact:
        """The artifact of a traced graph, with no free axis but the batch; raises `failure` where it differs."""
        model = traced_graph(module, example, tuple(expected), failure)
        artifact = _saved(model, module, target)
        try:
            self._require_parity(artifact, module, example, expected)
            self._require_parity_elsewhere(artifact, module, example)
        except (DataError, ExportError, RuntimeFailureError):
            # a trace may even drop an input
            raise failure from failure.__cause__
        return replace(artifact, remarks=(sentence_on(failure),))

    def _require_parity(
        self, artifact: Artifact, module: torch.nn.Module, example: Example, expected: Mapping[str, torch.Tensor]
    ) -> None:
        session = self.load(artifact, threads=1, options={})
        _check_parity(session, artifact, example, expected)
        if artifact.fixed_batch is None:
            # a second batch size shows whether the outputs depend on it
            for size in {1, 3} - {example.batch}:
                other = example.with_batch(size)
                _check_parity(session, artifact, other, call(module, other))

    def _require_parity_elsewhere(self, artifact: Artifact, module: torch.nn.Module, example: Example) -> None:
        """Compare on other values than the example's, as far as the module takes them."""
        session = self.load(artifact, threads=1, options={})
        for other in other_values(example):
            try:
                expected = call(module, other)
            except ModelError:
                continue
            _check_parity(session, artifact, other, expected)

    def _differing_axes(self, artifact: Artifact, module: torch.nn.Module, example: Example) -> Sequence[Axis]:
        """The free axes at whose other sizes the file and the module differ, or the file fails.

        A size equal to the example's may be a constant that a reshape or a branch baked in.

        Raises:
            ExportError: when they differ in a declared axis.
        """
        session = self.load(artifact, threads=1, options={})
        differing: list[Axis] = []
        for axes in axes_by_name(artifact.inputs).values():
            compared = far = False
            for other, expected in at_other_sizes(module, example, axes):
                if compared and not (is_varying(other, example, axes) or is_far(other, example, axes)):
                    continue
                try:
                    _check_parity(session, artifact, other, expected)
                except (ExportError, RuntimeFailureError) as error:
                    require_undeclared(example, error, axes)
                    compared = False
                    break
                compared, far = True, far or is_far(other, example, axes)
                if far and not is_varying(other, example, axes):
                    break
            if not compared:
                differing += axes
        return differing

    def without_names(self, artifact: Artifact, destination: Path) -> Artifact:
        """See `Runtime.without_names`."""
        return without_names(artifact, destination)

    def read(self, path: Path) -> Artifact:
        """See `Runtime.read`."""
        return describe(load_model(path, with_weights=False), path)

    def load(self, artifact: Artifact, threads: int, options: Mapping[str, str]) -> OnnxSession:
        """See `Runtime.load`."""
        return OnnxSession(artifact, threads, options)

    def contents(self, artifact: Artifact) -> Contents:
        """See `Runtime.contents`; scales and zero points count as weights, since they are in the file too.

        Palettes count as the values that they hold.
        """
        model = without_palettes(open_model(artifact.path))
        counts = [_counts(tensor) for tensor in model.graph.initializer]
        return Contents(
            sum(count for count, _ in counts),
            sum(nonzero for _, nonzero in counts),
            dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        )

    def largest_tensors(self, artifact: Artifact) -> Sequence[tuple[str, int]]:
        """See `Runtime.largest_tensors`."""
        model = open_model(artifact.path)
        labels = weight_labels(model)
        sizes = [(labels[tensor.name], values_of(tensor).nbytes) for tensor in model.graph.initializer]
        return sorted(sizes, key=lambda one: -one[1])

    def slowest_operators(
        self, artifact: Artifact, inputs: Mapping[str, Array], threads: int, options: Mapping[str, str]
    ) -> Sequence[tuple[str, str, float]]:
        """See `Runtime.slowest_operators`; operators as onnxruntime fuses and times them."""
        with scratch("profiling") as folder:
            session = OnnxSession(artifact, threads, options, times_to=folder / "times")
            start = time.monotonic()
            for _ in range(PROFILED_CALLS):
                session.run(inputs)
                if time.monotonic() - start > PROFILED_SECONDS:
                    break
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        taken: dict[tuple[str, str], list[float]] = {}
        for event in events:
            kind = event.get("args", {}).get("op_name")
            if event.get("cat") == "Node" and kind and event["name"].endswith("_kernel_time"):
                taken.setdefault((event["name"].removesuffix("_kernel_time"), kind), []).append(event["dur"])
        # single calls that another process interrupts must not make an operator look slow
        spent = {key: len(times) * float(np.median(times)) for key, times in taken.items()}
        total = sum(spent.values()) or 1
        ordered = sorted(spent.items(), key=lambda one: -one[1])
        return [(name, kind, micros / total) for (name, kind), micros in ordered]

    @property
    def versions(self) -> Mapping[str, str]:
        """See `Runtime.versions`."""
        return {
            "onnxruntime": onnxruntime.__version__,
            "onnx": onnx.__version__,
            "torch": torch.__version__,
        }


def _counts(tensor: onnx.TensorProto) -> tuple[int, int]:
    """The number of values, and of those that are not zero."""
    values = values_of(tensor)
    return values.size, int(np.count_nonzero(values))


def _check_parity(session: Session, artifact: Artifact, example: Example, expected: Mapping[str, torch.Tensor]) -> None:
    feed = align(example.inputs, artifact.inputs, where="example inputs")
    for (name, tensor), found in zip(expected.items(), session.run(feed), strict=True):
        wanted = tensor.detach().cpu().numpy()
        if wanted.shape != found.shape:
            raise ExportError(
                f"output {name!r} has shape {found.shape} after export, {wanted.shape} before.", where="model"
            )
        if wanted.dtype.kind != "f":
            _require_equal(name, wanted, found)
            continue
        scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-6)
        gap = float(np.abs(wanted.astype(np.float64) - found.astype(np.float64)).max(initial=0.0))
        if not gap <= PARITY_TOLERANCE * scale:
            raise ExportError(
                f"output {name!r} differs by {gap:.3g} after export (largest value {scale:.3g}).",
                where="model",
                hint="Look for randomness, or branches on data or batch size, in forward().",
            )


def _require_equal(name: str, wanted: Array, found: Array) -> None:
    """Raise ExportError where whole numbers or truth values differ in more places than rounding explains."""
    differing = float(np.mean(wanted != found)) if wanted.size else 0.0
    if differing > DIFFERING:
        raise ExportError(
            f"output {name!r} ({wanted.dtype}) differs by {differing:.0%} of its values after export.",
            where="model",
            hint="Look for randomness, or branches on data or batch size, in forward().",
        )


def _export(
    module: torch.nn.Module,
    example: Example,
    outputs: tuple[str, ...],
    target: _Target,
    axes: Sequence[Axis] = (),
) -> Artifact:
    # the graph and its weights are freed when this returns, before sessions load them again
    with scratch("export") as folder:
        model = export_graph(module, without_ones(module, example, axes), outputs, folder, axes)
        name_axes(model, module, example, axes)
        return _saved(model, module, target)


def _saved(model: onnx.ModelProto, module: torch.nn.Module, target: _Target) -> Artifact:
    places = nodes_of(model, module, target.keep_float) if target.keep_float else []
    names = node_names(model.graph, WRAPPER) if target.named else None
    made = mark_float(compact(model), places)
    return save_model(made if names is None else with_names(made, names), target.path)
