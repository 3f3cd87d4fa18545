"""An ONNX file as the model of a run: what changes files is tried on it, what changes modules is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from autocompress.analysis.graph_inspection import inspect_graph
from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.facts import Facts
from autocompress.core.model import START, Exported, Fitted, Model
from autocompress.core.runtime import Example, Runtime, Session, align
from autocompress.core.source import Array
from autocompress.core.task import Task
from autocompress.data.example_inputs import given_example, made_up_arrays
from autocompress.data.input_shapes import timed_example
from autocompress.data.model_columns import for_file
from autocompress.errors import ArtifactError, ModelError, RuntimeFailureError
from autocompress.runtimes.external_weights import duplicate, has_references
from autocompress.runtimes.node_names import node_names, with_names
from autocompress.runtimes.onnx_file import compact, describe, mark_float, save_model
from autocompress.runtimes.onnx_layers import names_in, places_of
from autocompress.runtimes.onnx_normalization import Form, forms, main_type
from autocompress.runtimes.onnx_source import holds_its_weights, read_source, with_outputs
from autocompress.runtimes.onnxruntime import PARITY_TOLERANCE, OnnxRuntime
from autocompress.system.scratch import scratch

# largest distance of a float32 copy's outputs from those of a file in half precision, as a share of the largest value
HALF_TOLERANCE = 16 * float(np.finfo(np.float16).eps)


@dataclass(frozen=True, eq=False)
class FileModel(Model):
    """A file; `source` is its graph with the outputs that ship, `form` what techniques begin with.

    `whole` says that the baseline is the file itself, byte for byte.
    """

    path: Path
    source: onnx.ModelProto
    form: Form
    whole: bool

    @staticmethod
    def read(path: Path) -> FileModel:
        """The model in a file.

        Raises:
            ArtifactError, ModelError: see `read_source`.
        """
        source = read_source(path)
        return FileModel(path, source, Form(source), whole=holds_its_weights(path))

    @property
    def module(self) -> None:
        """See `Model.module`."""
        return None

    @property
    def layer_names(self) -> Sequence[str]:
        """See `Model.layer_names`: layers, nodes and stored weights."""
        return names_in(self.source.graph)

    def fitted(
        self, task: Task | None, inputs: Any, specs: Sequence[TensorSpec], outputs: str | Sequence[str]
    ) -> Fitted:
        """See `Model.fitted`; inputs go by the file's names, or by place where they have none.

        Raises:
            ModelError: when onnxruntime cannot load or run it.
            FreeDimensionError: when nothing says how large an axis is.
        """
        chosen = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        source = with_outputs(self.source, chosen, self.path)
        described = describe(source, self.path)
        task, left_out = for_file(task, [spec.name for spec in described.inputs])
        example = Example(_example(described, task, inputs, specs), chosen)
        with scratch("source") as folder:
            form = _fitting_form(source, example, folder, self.path)
        made = replace(self, source=source, form=form, whole=self.whole and source is self.source)
        return Fitted(made, task, example, left_out, made.preparation)

    @property
    def preparation(self) -> tuple[str, ...]:
        """A sentence for each thing in which what is compressed is not the file."""
        if self.whole:
            baseline = "budgets compare with it, byte for byte"
        else:
            kept = ", ".join(value.name for value in self.source.graph.output)
            files = (
                "a file of its graph and one of its weights"
                if has_references(self.source)
                else "one file of its graph and its weights"
            )
            baseline = f"budgets compare with {files}, with the outputs {kept}"
        return (f"the model is the file {self.path.name}: {baseline}", *self.form.sentences)

    def export(self, runtime: Runtime, example: Example, destination: Path, keep_float: Sequence[str] = ()) -> Exported:
        """See `Model.export`: the file itself, and the form of it that techniques begin with.

        Raises:
            ModelError: when the runtime takes files of another format.
        """
        if runtime.format != "onnx":
            raise ModelError(f"is an ONNX file, and {runtime.name} takes {runtime.format}.", where=str(self.path))
        if self.whole:
            baseline = describe(self.source, self.path).copy_to(destination)
        else:
            baseline = save_model(_to_save(self.source), destination)
        start = duplicate(self.form.model)
        places = places_of(start.graph, keep_float) if keep_float else []
        names = node_names(start.graph)
        named = with_names(mark_float(compact(start), places), names)
        return Exported(baseline, save_model(named, destination.with_name(f"{START}{runtime.suffix}")))

    def facts(self, example: Example) -> Facts:
        """See `Model.facts`."""
        described = describe(self.form.model, self.path)
        batch = described.fixed_batch or 1
        feed = align(example.with_batch(batch).inputs, described.inputs, where="example inputs")
        return replace(inspect_graph(self.form.model, feed, batch), preparation=self.preparation)


def _example(described: Artifact, task: Task | None, inputs: Any, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Inputs of one call by the file's names: as given, else of the data, the specs, or made up."""
    asked: Sequence[TensorSpec] = ()
    data = None
    part = task.calibration or task.holdout if task else None
    if isinstance(inputs, str):
        asked = (TensorSpec.parse(inputs, default_dtype=""),)
    elif isinstance(inputs, TensorSpec):
        asked = (inputs,)
    elif isinstance(inputs, tuple | list) and inputs and all(isinstance(one, TensorSpec) for one in inputs):
        asked = tuple(inputs)
    elif inputs is not None:
        data = given_example(inputs)
    elif part is not None:
        data = Example(next(iter(part.first(2).batches(2)))[0])
    else:
        asked = specs
    batch = described.fixed_batch or (data.batch if data else 1)
    found = timed_example(described, asked, data, batch)
    if found is None:
        return made_up_arrays(described.inputs, batch)
    return align(found.with_batch(batch).inputs, described.inputs, where="data")


def _fitting_form(source: onnx.ModelProto, example: Example, folder: Path, path: Path) -> Form:
    """The first form of the graph that onnxruntime runs and that computes what the file does.

    Raises:
        ModelError: when onnxruntime cannot load or run the file itself, or it computes something else at each call.
    """
    runtime = OnnxRuntime()
    artifact = save_model(_to_save(source), folder / "source.onnx")
    session = _loaded(runtime, artifact, path)
    wanted = _outputs(session, artifact, example, path)
    if not _agree(wanted, _outputs(session, artifact, example, path), 0.0):
        raise ModelError("gives other outputs each time it is called.", where=str(path), hint="Look for random nodes.")
    # two sessions with gigabytes of weights are one too many
    del session
    tolerance = PARITY_TOLERANCE if main_type(source) == onnx.TensorProto.FLOAT else HALF_TOLERANCE
    for number, form in enumerate(forms(source)):
        tried = save_model(compact(duplicate(form.model)), folder / f"form{number}.onnx")
        try:
            found = runtime.load(tried, 1, {}).run(align(example.inputs, tried.inputs, where="data"))
        except RuntimeFailureError:
            continue
        if _agree(wanted, found, tolerance):
            return form
    return Form(source)


def _to_save(model: onnx.ModelProto) -> onnx.ModelProto:
    """What may be saved, which takes the weights out of large models; copied where it refers to them."""
    return duplicate(model) if has_references(model) else model


def _loaded(runtime: OnnxRuntime, artifact: Artifact, path: Path) -> Session:
    try:
        return runtime.load(artifact, 1, {})
    except RuntimeFailureError as error:
        raise ArtifactError(
            error.message, where=str(path), hint="Export it for this version of onnxruntime, without own operators."
        ) from error


def _outputs(session: Session, artifact: Artifact, example: Example, path: Path) -> tuple[Array, ...]:
    feed = align(example.inputs, artifact.inputs, where="data")
    try:
        found = session.run(feed)
    except RuntimeFailureError as error:
        shapes = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in feed.items())
        raise ModelError(
            f"{error.message} on the inputs ({shapes})",
            where=str(path),
            hint="Check that data and input spec are what the model takes.",
        ) from error
    for spec, array in zip(artifact.outputs, found, strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(
                f"gives output {spec.name!r} that is not finite (NaN or infinity).",
                where=str(path),
                hint="Check its weights and the inputs, or choose other outputs (outputs=, --output).",
            )
    return found


def _agree(wanted: Sequence[Array], found: Sequence[Array], tolerance: float) -> bool:
    """True when no output differs by more than this share of its largest value."""
    for one, other in zip(wanted, found, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        gap = np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0)
        if not gap <= tolerance * max(float(np.abs(one.astype(np.float64)).max(initial=0.0)), 1e-6):
            return False
    return True
