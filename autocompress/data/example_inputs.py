"""Example inputs: from the data, from the caller, from the profile, or from the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.runtime import Example, align
from autocompress.core.source import Array, Inputs, to_array
from autocompress.core.task import Task
from autocompress.data.copies import dtype_of
from autocompress.data.module import call
from autocompress.errors import DataError, ModelError, RuntimeFailureError

# what inputs of an open dtype are tried as: images and features, then token ids and their masks
OPEN_DTYPES = ("float32", "int64")


def as_task(data: Any) -> Task | None:
    """A task from a Task, arrays, a Dataset, a DataLoader, or a dict of these.

    Arrays are `(inputs, targets)`; a dict has the keys train, val, test.

    Raises:
        DataError: when the object is none of these, or a split is empty.
    """
    if data is None or isinstance(data, Task):
        return data
    if isinstance(data, Mapping):
        unknown = set(data) - {"train", "val", "test"}
        if unknown:
            raise DataError(
                f"has the key {sorted(map(str, unknown))[0]!r}.", where="data", hint="Known: train, val, test."
            )
        return Task(**data)
    return Task(test=data)


def example_for(
    model: Any, task: Task | None, inputs: Any, specs: Sequence[TensorSpec], outputs: str | Sequence[str] = ()
) -> Example:
    """Example inputs for a model, from the first source that is available, with the chosen outputs.

    The sources are: `inputs` as given, items of the data, the profile's specs, the model's own `example_input_array`
    (Lightning) or `dummy_inputs` (Hugging Face).

    Raises:
        ModelError: when there is none of them.
    """
    chosen = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    example = replace(_first_example(model, task, inputs, specs), outputs=chosen)
    if isinstance(model, torch.nn.Module) and dtype_of(model) is not torch.float32:
        # the float32 copy of the model takes them
        return replace(example, inputs=_in_float32(example.inputs))
    return example


def _first_example(model: Any, task: Task | None, inputs: Any, specs: Sequence[TensorSpec]) -> Example:
    if specs_in(inputs):
        return _made_up_as_taken(model, specs_in(inputs))
    if inputs is not None:
        return given_example(inputs)
    part = task.calibration or task.holdout if task else None
    if part is not None:
        read, _ = next(iter(part.first(2).batches(2)))
        return Example(_as_model_takes(read))
    if specs:
        return _made_up_as_taken(model, specs)
    for attribute in ("example_input_array", "dummy_inputs"):
        own = getattr(model, attribute, None)
        if own is not None:
            return given_example(own)
    raise ModelError(
        "there is nothing to call it with.",
        where="model",
        hint='Give data, inputs="1x3x32x32:float32" (--input), or `inputs:` in the profile.',
    )


def made_up_arrays(specs: Sequence[TensorSpec], batch: int) -> dict[str, Array]:
    """One batch of generated inputs that fit the specs.

    Floats are normally distributed; whole numbers are ones: tables of tokens have that index, and a mask of ones hides
    nothing.

    Raises:
        FreeDimensionError: when a dimension beside the batch is free.
    """
    generator = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for spec in specs:
        shape = spec.with_batch(batch)
        is_float = np.dtype(spec.dtype).kind == "f"
        values = generator.standard_normal(shape) if is_float else np.ones(shape)
        arrays[spec.name] = values.astype(spec.dtype)
    return arrays


def feed_of(artifact: Artifact, example: Example | None, batch: int) -> dict[str, Array]:
    """The inputs that an artifact is measured with, by name: one batch of the example, or generated ones.

    Raises:
        RuntimeFailureError: when it takes batches of another size only.
        FreeDimensionError: when there is no example, and a dimension beside the batch is free.
        DataError: when the example does not fit its inputs.
    """
    if artifact.fixed_batch not in (None, batch):
        raise RuntimeFailureError(
            f"takes batches of {artifact.fixed_batch} only, the profile measures at {batch}.",
            where=str(artifact.path),
            hint="Export it with a free batch, or set protocol.batch.",
        )
    if example is None:
        return made_up_arrays(artifact.inputs, batch)
    return align(example.with_batch(batch).inputs, artifact.inputs, where="example inputs")


def made_up(specs: Sequence[TensorSpec]) -> Example:
    """Example inputs generated from specs, for a model that nothing else is known of."""
    arrays = made_up_arrays(specs, batch=1)
    return Example(tuple(arrays.values()) if all(spec.has_no_name for spec in specs) else arrays)


def _made_up_as_taken(model: Any, specs: Sequence[TensorSpec]) -> Example:
    """Example inputs of specs, in which open dtypes are the first of `OPEN_DTYPES` that the model takes.

    Raises:
        ModelError: when the model takes none of them.
    """
    failures = []
    for dtype in OPEN_DTYPES:
        example = made_up([spec if spec.dtype else replace(spec, dtype=dtype) for spec in specs])
        if all(spec.dtype for spec in specs):
            return example
        try:
            call(model, example)
        except ModelError as error:
            failures.append(error)
            continue
        return example
    raise ModelError(
        failures[0].message,
        where=failures[0].where,
        hint=f"State what it takes, for example inputs: {{{specs[0].name}: 1x128:int64}} in the profile.",
    )


def specs_in(inputs: Any) -> tuple[TensorSpec, ...]:
    """The specs that a caller gave as inputs; empty where they are arrays, or nothing.

    A dtype that is not given stays open.

    Raises:
        UsageError: when a text is no input spec.
    """
    if isinstance(inputs, str):
        return (TensorSpec.parse(inputs, default_dtype=""),)
    parts = inputs if isinstance(inputs, tuple | list) else (inputs,)
    return tuple(parts) if parts and all(isinstance(part, TensorSpec) for part in parts) else ()


def given_example(inputs: Any) -> Example:
    """Example inputs as a caller gives them: arrays by place or name."""
    if isinstance(inputs, Mapping):
        return Example(_as_model_takes({str(name): to_array(value) for name, value in inputs.items()}))
    parts = inputs if isinstance(inputs, tuple | list) else (inputs,)
    return Example(_as_model_takes(tuple(to_array(part) for part in parts)))


def in_dtype_of(example: Example, name: str, array: Array) -> Array:
    """A floating input array in the example's type, but never in float64; others as they are."""
    known = example.arrays.get(name)
    if known is None or known.dtype.kind != "f" or array.dtype.kind != "f":
        return array
    return array.astype(np.float32 if known.dtype == np.float64 else known.dtype, copy=False)


def _in_float32(inputs: Inputs) -> Inputs:
    def cast(array: Any) -> Any:
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    if isinstance(inputs, dict):
        return {name: cast(array) for name, array in inputs.items()}
    return tuple(cast(array) for array in inputs)


def _as_model_takes(inputs: Inputs) -> Inputs:
    # float64 is only numpy's default: a float32 model was never trained on it
    def narrow(array: Any) -> Any:
        return array.astype(np.float32) if array.dtype == np.float64 else array

    if isinstance(inputs, dict):
        return {name: narrow(array) for name, array in inputs.items()}
    return tuple(narrow(array) for array in inputs)
