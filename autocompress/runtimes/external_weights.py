"""Weights in a file beside the graph, for models that are larger than the 2 GB of one ONNX file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, set_external_data

from autocompress.errors import ArtifactError
from autocompress.system.workspace import write_atomically

# most bytes of weights that go into the graph's own file; protobuf holds 2 GiB, and the graph needs some
ONE_FILE_BYTES = 1_900_000_000
# tensors of fewer bytes stay in the graph, where shape inference finds them
LEAST_BYTES = 1024
# where a tensor begins in the file: runtimes map whole pages of memory
ALIGNED = 4096
PREFIX, SUFFIX = "weights-", ".data"


def needs_own_file(model: onnx.ModelProto) -> bool:
    """True when the weights are too many for one file."""
    return bool(sum(tensor.ByteSize() for tensor in model.graph.initializer) > ONE_FILE_BYTES)


def move_weights(model: onnx.ModelProto, folder: Path) -> str:
    """Move the weights to a file in `folder`; gives its name, which follows from its content.

    Each tensor leaves memory as soon as it is written.
    """
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= LEAST_BYTES]
    digest = hashlib.sha256()
    places = []
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / f"{PREFIX}unnamed{SUFFIX}"

    def write(target: Path) -> None:
        with target.open("wb") as file:
            for tensor in large:
                gap = bytes(-file.tell() % ALIGNED)
                file.write(gap)
                places.append((file.tell(), len(tensor.raw_data)))
                file.write(tensor.raw_data)
                digest.update(gap)
                digest.update(tensor.raw_data)
                # the values are needed no more, and set_external_data asks for some
                tensor.raw_data = b"-"

    write_atomically(unnamed, write)
    name = f"{PREFIX}{digest.hexdigest()[:16]}{SUFFIX}"
    unnamed.rename(folder / name)
    for tensor, (offset, length) in zip(large, places, strict=True):
        set_external_data(tensor, name, offset=offset, length=length)
        tensor.ClearField("raw_data")
    return name


def weight_files(model: onnx.ModelProto, path: Path) -> tuple[str, ...]:
    """Names of the files beside the graph's that hold its weights.

    Raises:
        ArtifactError: when one of them is missing or lies in another folder.
    """
    names = dict.fromkeys(
        ExternalDataInfo(tensor).location for tensor in model.graph.initializer if _is_outside(tensor)
    )
    for name in names:
        if Path(name).name != name or (path.parent / name).is_symlink():
            raise ArtifactError(
                f"keeps its weights in {name!r}, which is no file beside it.",
                where=str(path),
                hint="Save model and weights in one folder.",
            )
        if not (path.parent / name).is_file():
            raise ArtifactError(
                f"keeps its weights in {name!r}, which is not beside it.",
                where=str(path),
                hint="Copy this file along with the model.",
            )
    return tuple(names)


def load_weights(model: onnx.ModelProto, folder: Path) -> None:
    """Read the weights that lie beside the graph into it."""
    load_external_data_for_model(model, str(folder))


def _is_outside(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)
