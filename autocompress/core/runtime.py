"""Contract Runtime: exports a module to the file that is deployed, and runs that file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autocompress.core.artifact import Artifact, TensorSpec, input_name
from autocompress.core.dynamic_axes import Axis, DynamicAxes
from autocompress.core.output_kinds import OutputFact
from autocompress.core.outputs import main_output
from autocompress.core.source import Array, ArraySource, Inputs, Split, whole
from autocompress.core.targets import Targets, rows_in
from autocompress.errors import DataError, ExportError, UnusableItemError, raised_as
from autocompress.system.locks import working

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Example:
    """Example inputs of a model, with a batch axis first.

    They are arrays in the order of the model's arguments, or by argument name. `outputs` names the outputs of the model
    that count, or paths to several of them; empty for all. `dynamic` says which axes are to stay free in a file.
    `kinds` are what the floating outputs mean, by name; empty where that was not looked for.
    """

    inputs: Inputs
    outputs: tuple[str, ...] = ()
    dynamic: DynamicAxes = field(default_factory=DynamicAxes)
    kinds: Mapping[str, OutputFact] = field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays, by the names that the artifact's inputs will have."""
        if isinstance(self.inputs, dict):
            return dict(self.inputs)
        return {input_name(place): array for place, array in enumerate(self.inputs)}

    @property
    def by_name(self) -> bool:
        """True when the model is called with keyword arguments."""
        return isinstance(self.inputs, dict)

    @property
    def batch(self) -> int:
        """Number of items in the batch."""
        return next((len(array) for array in self.arrays.values() if array.ndim), 1)

    def with_batch(self, size: int) -> Example:
        """The example with `size` items: the first ones, repeated as often as needed."""
        take = np.arange(size) % self.batch
        # a single number has no batch
        if isinstance(self.inputs, dict):
            named = {name: array[take] if array.ndim else array for name, array in self.inputs.items()}
            return replace(self, inputs=named)
        return replace(self, inputs=tuple(array[take] if array.ndim else array for array in self.inputs))

    def with_sizes(self, sizes: Mapping[Axis, int]) -> Example:
        """The example with other sizes in these axes: the first entries, repeated as often as needed."""
        arrays = self.arrays
        for (name, place), size in sizes.items():
            arrays[name] = arrays[name].take(np.arange(size) % arrays[name].shape[place], axis=place)
        return replace(self, inputs=arrays if self.by_name else tuple(arrays.values()))

    def as_split(self, name: str = "example") -> Split:
        """The items as calibration data, with placeholder targets."""
        return whole(name, ArraySource(self.inputs, np.zeros(self.batch, dtype=np.int64)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays as tensors, by name."""
        import torch

        return {name: torch.from_numpy(np.array(array)) for name, array in self.arrays.items()}


@dataclass(frozen=True)
class Contents:
    """Contents of an artifact: stored weights, those that are not zero, and its operators by type."""

    parameters: int
    nonzero: int
    operators: Mapping[str, int]


class Session(ABC):
    """A loaded artifact that can be run."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
        """Outputs for one batch, in the order of the artifact's outputs.

        Raises:
            RuntimeFailureError: when the runtime fails on these inputs.
        """


class Runtime(ABC):
    """An inference runtime that deployed files are run with.

    `format` names the format of its artifacts, `suffix` is the ending of their entry file's name. `meter_backend` is
    the file that the measuring program loads them with: see `autocompress/devices/meter/program.py`.
    """

    name: ClassVar[str]
    format: ClassVar[str]
    suffix: ClassVar[str]
    meter_backend: ClassVar[Path]

    @abstractmethod
    def export(
        self,
        module: torch.nn.Module,
        example: Example,
        destination: Path,
        keep_float: Sequence[str] = (),
        *,
        named: bool = False,
    ) -> Artifact:
        """Export the module in inference mode to an artifact at `destination`.

        The batch is free where the module allows it, and so are the axes that `example.dynamic` asks for or that are
        tried by its policy. The module is left as it was. The nodes of layers that
        `keep_float` names are marked in the artifact, and quantization leaves them in float. `named` leaves the names
        of the layers in the artifact where its format has room for them, so that techniques can name layers.

        Raises:
            ExportError: when it cannot be exported (the layer is named), the artifact computes other values, a declared
                axis cannot be free, or the nodes of one of the layers to keep in float cannot be told apart in it.
        """

    @abstractmethod
    def without_names(self, artifact: Artifact, destination: Path) -> Artifact:
        """A copy of an artifact at `destination` as `export` gives it where it is not `named`."""

    @abstractmethod
    def read(self, path: Path) -> Artifact:
        """The artifact in a file.

        Raises:
            ArtifactError: when the file is missing, damaged or of another format.
        """

    @abstractmethod
    def load(self, artifact: Artifact, threads: int, options: Mapping[str, str]) -> Session:
        """Load an artifact into a session with `threads` threads and the runtime's own options.

        Raises:
            RuntimeFailureError: when the runtime refuses the artifact or an option.
        """

    @abstractmethod
    def contents(self, artifact: Artifact) -> Contents:
        """The contents of an artifact: weights and operators."""

    @abstractmethod
    def largest_tensors(self, artifact: Artifact) -> Sequence[tuple[str, int]]:
        """Descriptions of the artifact's stored tensors with their bytes, the largest first."""

    @abstractmethod
    def slowest_operators(
        self, artifact: Artifact, inputs: Mapping[str, Array], threads: int, options: Mapping[str, str]
    ) -> Sequence[tuple[str, str, float]]:
        """Name, type and share of the total time of each operator on these inputs, the slowest first.

        Raises:
            RuntimeFailureError: when the runtime fails on it.
        """

    @property
    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that measurements depend on, by name."""


def exported(
    runtime: Runtime,
    module: torch.nn.Module,
    example: Example,
    destination: Path,
    keep_float: Sequence[str] = (),
    *,
    named: bool = False,
) -> Artifact:
    """The module's artifact at `destination`; no measurement runs beside the export. See `Runtime.export`.

    Raises:
        ModelError: when the module fails on the example.
        ExportError: whatever else the runtime and the libraries that it uses raise.
    """
    with working(), raised_as(ExportError, "model"):
        return runtime.export(module, example, destination, keep_float, named=named)


def main_shape(artifact: Artifact) -> tuple[int | None, ...]:
    """The shape of the output that built-in scores take."""
    shapes = {spec.name: spec.shape for spec in artifact.outputs}
    return shapes[main_output(shapes)]


def align(
    inputs: Inputs, specs: Sequence[TensorSpec], where: str = "data", items: Sequence[int] = ()
) -> dict[str, Array]:
    """The inputs of a batch as the artifact takes them: by name, in its dtypes.

    `items` are the numbers of the batch's items where they are known, for errors.

    Raises:
        DataError: when names, number, shapes or dtypes do not fit, or a value is not finite.
    """
    named = inputs if isinstance(inputs, dict) else _by_position(inputs, specs, where)
    aligned = {}
    for spec in specs:
        if spec.name not in named:
            raise DataError(f"has no input {spec.name!r}.", where=where, hint=f"It has {', '.join(named)}.")
        aligned[spec.name] = _fit(named[spec.name], spec, where, items)
    return aligned


def feeds(split: Split, artifact: Artifact, size: int) -> Iterator[tuple[dict[str, Array], Targets]]:
    """Batches of a split as the artifact takes them, with their targets.

    An artifact with a fixed batch gets full batches only: the last one is filled up with its own items, so
    there may be more rows in the feed than targets.

    Raises:
        UnusableItemError: when an item cannot be read or does not fit the artifact.
    """
    fixed = artifact.fixed_batch
    coming, done = split.batches(fixed or size), 0
    while True:
        try:
            batch = next(coming, None)
            if batch is None:
                return
            inputs, targets = batch
            rows = rows_in(targets)
            items = split.indices[done : done + rows].tolist()
            feed = align(inputs, artifact.inputs, f"data ({split.name})", items)
        except DataError as error:
            raise UnusableItemError(error.message, where=error.where, hint=error.hint) from error
        done += rows
        if fixed and rows < fixed:
            fill = np.arange(fixed) % rows
            feed = {name: array[fill] for name, array in feed.items()}
        yield feed, targets


def _by_position(inputs: tuple[Array, ...], specs: Sequence[TensorSpec], where: str) -> dict[str, Array]:
    if len(inputs) != len(specs):
        raise DataError(f"has {len(inputs)} inputs, the model takes {len(specs)}.", where=where)
    return {spec.name: array for spec, array in zip(specs, inputs, strict=True)}


def _fit(array: Array, spec: TensorSpec, where: str, items: Sequence[int] = ()) -> Array:
    fits = array.ndim == len(spec.shape) and all(
        wanted is None or axis == 0 or wanted == found
        for axis, (wanted, found) in enumerate(zip(spec.shape, array.shape, strict=False))
    )
    if not fits:
        raise DataError(
            f"input {spec.name!r} has shape {_sizes(array.shape)}, the model takes {_sizes(spec.shape)}{_from(items)}.",
            where=where,
            hint="Give data in the model's shape.",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        item = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise DataError(
            f"input {spec.name!r} holds values that are not finite "
            f"(first in item {items[item] if items else f'{item} of a batch'}).",
            where=where,
            hint="Remove or replace such items.",
        )
    kinds = {"f": "f", "i": "iub", "u": "iub", "b": "b"}
    wanted_dtype = np.dtype(spec.dtype)
    if array.dtype.kind not in kinds[wanted_dtype.kind]:
        raise DataError(
            f"input {spec.name!r} holds {array.dtype}, the model takes {spec.dtype}.",
            where=where,
            hint="Convert the data; autocompress does not guess a scale.",
        )
    with np.errstate(over="ignore"):
        fitted = np.ascontiguousarray(array, dtype=wanted_dtype)
    kept = np.isfinite(fitted).all() if wanted_dtype.kind == "f" else np.array_equal(fitted, array)
    if not kept:
        raise DataError(f"input {spec.name!r} holds values beyond {spec.dtype}.", where=where)
    return fitted


def _from(items: Sequence[int]) -> str:
    return f" (from item {items[0]} on)" if items else ""


def _sizes(shape: Sequence[Any]) -> str:
    return "(" + ", ".join("n" if size is None else str(size) for size in shape) + ")"
