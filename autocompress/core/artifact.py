"""Artifacts: the model files that are measured and deployed."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from autocompress.errors import ArtifactError, FreeDimensionError, UsageError
from autocompress.system.workspace import make_folder, write_atomically

DTYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
BYTES_PER_MB = 1_000_000
UNNAMED = re.compile(r"input(_[0-9]+)?")
# files whose name follows from their content
NAMED_BY_CONTENT = re.compile(r"weights-[0-9a-f]{16}\.data")
# the size that advice gives a free dimension for an example
ADVISED_SIZE = 128


def input_name(place: int) -> str:
    """The name of an input that has none of its own, by its place from 0: `input`, `input_1`, ..."""
    return f"input_{place}" if place else "input"


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of an input or output; None stands for a free dimension.

    `axes` are the names that a file gives its dimensions, empty where it gives none. An empty `dtype` was left open: it
    is the one that the model takes.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        sizes = "x".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}={sizes}{':' if self.dtype else ''}{self.dtype}"

    @property
    def has_no_name(self) -> bool:
        """True for the names that inputs without one get by their place: `input`, `input_1`, ..."""
        return UNNAMED.fullmatch(self.name) is not None

    @property
    def free_axes(self) -> tuple[int, ...]:
        """Places of the free dimensions beside the first one, which is the batch."""
        return tuple(place for place, size in enumerate(self.shape) if size is None and place > 0)

    def axis(self, place: int) -> str:
        """The name of a dimension; empty where it has none."""
        return self.axes[place] if place < len(self.axes) else ""

    def with_batch(self, batch: int) -> tuple[int, ...]:
        """The shape with a free first dimension set to `batch`.

        Raises:
            FreeDimensionError: when another dimension is free, whose size nobody knows here.
        """
        if self.free_axes:
            names = ", ".join(self.axis(place) or f"dimension {place + 1}" for place in self.free_axes)
            sizes = (size or (ADVISED_SIZE if place else 1) for place, size in enumerate(self.shape))
            one = len(self.free_axes) == 1
            raise FreeDimensionError(
                f"input {self.name} has {'a free dimension' if one else 'free dimensions'} ({names}): give its shape "
                f"with inputs: in the profile, --input {self.name}={'x'.join(map(str, sizes))}, or --data"
            )
        return tuple(batch if size is None else size for size in self.shape)

    @staticmethod
    def parse(
        text: str, default_name: str = "input", where: str = "--input", default_dtype: str = "float32"
    ) -> TensorSpec:
        """A spec from `1x3x32x32:float32` or `ids=1x128:int64`; the dtype defaults to float32.

        Raises:
            UsageError: when the text is not of this form.
        """
        name, _, rest = text.rpartition("=")
        shape_text, _, dtype = rest.partition(":")
        sizes = shape_text.split("x")
        if dtype not in ("", *DTYPES) or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise UsageError(
                f"{text!r} is not an input spec.",
                where=where,
                hint=f"Write 1x3x32x32:float32, with one of {', '.join(DTYPES)}.",
            )
        return TensorSpec(name or default_name, dtype or default_dtype, tuple(int(size) for size in sizes))


@dataclass(frozen=True)
class Artifact:
    """A set of files with an entry point; exactly what is measured is deployed.

    Args:
        root: folder that holds the files.
        entry: name of the file that a runtime opens.
        files: names of all files, the entry included.
        format: `onnx`, ...
        inputs, outputs: specs in the order of the graph.
        remarks: a sentence for each thing that is special about how it was exported.
    """

    root: Path
    entry: str
    files: tuple[str, ...]
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    remarks: tuple[str, ...] = field(default=(), compare=False)

    @property
    def path(self) -> Path:
        """Path of the entry point."""
        return self.root / self.entry

    @property
    def size_bytes(self) -> int:
        """Size of all files in bytes."""
        return sum((self.root / name).stat().st_size for name in self.files)

    @cached_property
    def hash(self) -> str:
        """The sha256 over names (except the entry's) and contents of all files, 64 hex digits."""
        digest = hashlib.sha256()
        for name in sorted(self.files, key=lambda name: (name != self.entry, name)):
            digest.update(b"entry" if name == self.entry else name.encode())
            with (self.root / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @property
    def fixed_batch(self) -> int | None:
        """The batch size the artifact is fixed to, None when the first dimension of its inputs is free."""
        sizes = {spec.shape[0] for spec in self.inputs if spec.shape}
        return next((size for size in sizes if size is not None), None)

    def copy_to(self, entry: Path) -> Artifact:
        """Copy the files, with the entry point at `entry`; each file is written whole or not at all.

        Files that are named by their content are shared with other artifacts in the folder.
        """
        make_folder(entry.parent)
        renamed = {name: (entry.name if name == self.entry else name) for name in self.files}
        for name, new_name in renamed.items():
            # no links: onnx refuses weights in a file that has several names
            source, target = self.root / name, entry.parent / new_name
            if not (NAMED_BY_CONTENT.fullmatch(name) and _is_there(source, target)):
                write_atomically(target, partial(shutil.copyfile, source))
        return replace(self, root=entry.parent, entry=entry.name, files=tuple(renamed.values()))


def _is_there(source: Path, target: Path) -> bool:
    """True when a whole file of this name and content has been written before."""
    return target.is_file() and not target.is_symlink() and target.stat().st_size == source.stat().st_size


def require_file(path: Path) -> None:
    """Raise ArtifactError when `path` is no readable, non-empty file."""
    if not path.exists():
        raise ArtifactError("does not exist.", where=str(path), hint="Give the path of an ONNX file.")
    if not path.is_file():
        raise ArtifactError("is not a file.", where=str(path), hint="Give the path of the artifact itself.")
    if path.stat().st_size == 0:
        raise ArtifactError("is empty.", where=str(path), hint="Write it again; the file was cut off.")


def describe_specs(specs: Sequence[TensorSpec]) -> str:
    """All specs as text in one line."""
    return ", ".join(map(str, specs))
