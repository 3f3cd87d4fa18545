"""Weights in a file beside the graph, for models that are larger than the 2 GB of one ONNX file.

In memory such a model refers to its weights: `basepath`, one of the keys that ONNX has for external data, holds the
folder of the file that they lie in. They are read tensor by tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_model,
    load_external_data_for_tensor,
    set_external_data,
)

from autocompress.core.source import Array
from autocompress.errors import ArtifactError
from autocompress.system.workspace import write_atomically

if TYPE_CHECKING:
    import onnx_ir

# most bytes of weights that go into the graph's own file; protobuf holds 2 GiB, and the graph needs some
ONE_FILE_BYTES = 1_900_000_000
# tensors of fewer bytes stay in the graph, where shape inference finds them
LEAST_BYTES = 1024
# where a tensor begins in the file: runtimes map whole pages of memory
ALIGNED = 4096
PREFIX, SUFFIX = "weights-", ".data"
# file with the weights of an export on its way
WRITTEN = "exported.data"
FOLDER = "basepath"
# key of a matrix that stands transposed in its file
TRANSPOSED = "transposed"


def to_proto(model: onnx_ir.Model, folder: Path) -> onnx.ModelProto:
    """The model in ONNX's own form; weights too many for one file are written to `folder` one by one."""
    # imported here: it takes half a second, which programs that only load files, such as the gate, need not wait for
    import onnx_ir

    stored = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    if fits_one_file(sum(tensor.nbytes for tensor in stored if tensor is not None)):
        return onnx_ir.to_proto(model)
    onnx_ir.external_data.unload_from_model(model, folder, WRITTEN, size_threshold_bytes=LEAST_BYTES)
    return refer_to(onnx_ir.to_proto(model), folder)


def fits_one_file(size: int) -> bool:
    """True when so many bytes of weights go into the graph's own file."""
    return size <= ONE_FILE_BYTES


def with_folders(graph: onnx_ir.Model, model: onnx.ModelProto) -> onnx_ir.Model:
    """The graph that was made from a model, with the folders of the weights that the model refers to."""
    import onnx_ir

    for folder in _folders(model):
        onnx_ir.external_data.set_base_dir(graph.graph, folder)
    return graph


def referring_to_same(made: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """The model made from another one, with references to the weights that the other one refers to."""
    for folder in _folders(model):
        refer_to(made, folder)
    return made


def _folders(model: onnx.ModelProto) -> set[Path]:
    """The folders of the weights that a model refers to, empty where it holds them."""
    named = (_entry(tensor, FOLDER) for tensor in model.graph.initializer if is_outside(tensor))
    return {Path(folder) for folder in named if folder}


def needs_own_file(model: onnx.ModelProto) -> bool:
    """True when the weights are too many for one file."""
    return not fits_one_file(sum(map(bytes_of, model.graph.initializer)))


def bytes_of(tensor: TensorProto) -> int:
    """The size of a stored tensor in bytes, wherever its values are."""
    return int(_entry(tensor, "length") or 0) if is_outside(tensor) else int(tensor.ByteSize())


def is_outside(tensor: TensorProto) -> bool:
    """True when the values of a tensor are in a file beside the graph's."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def has_references(model: onnx.ModelProto) -> bool:
    """True when the model refers to weights in a file."""
    return bool(_folders(model))


def refer_to(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Make the weights that lie outside of the graph refer to their files in a folder.

    Small ones, and those elsewhere than among the graph's own stored values, are read at once.

    Raises:
        ValueError: when a file is shorter than its weights.
        OSError: when it cannot be read.
    """
    for tensor in model.graph.initializer:
        if not is_outside(tensor):
            continue
        place = ExternalDataInfo(tensor)
        start, there = place.offset or 0, (folder / place.location).stat().st_size
        length = there - start if place.length is None else place.length
        if length < 0 or start + length > there:
            raise ValueError(f"{place.location!r} is too short for the weight {tensor.name!r}")
        if length >= LEAST_BYTES:
            tensor.raw_data = b"-"
            set_external_data(tensor, place.location, start, length, basepath=str(folder.resolve()))
            tensor.ClearField("raw_data")
    for tensor in tensors_of(model):
        if is_outside(tensor) and _entry(tensor, FOLDER) != str(folder.resolve()):
            load_external_data_for_tensor(tensor, str(folder))
    return model


def without_folders(model: onnx.ModelProto) -> None:
    """Remove from a model that was read what could make it refer to files in other folders."""
    for tensor in tensors_of(model):
        for place in reversed(range(len(tensor.external_data))):
            if not is_outside(tensor) or tensor.external_data[place].key not in ("location", "offset", "length"):
                del tensor.external_data[place]


def values_of(tensor: TensorProto) -> Array:
    """The values of a stored tensor; those in a file are mapped into memory, and read as they are used.

    Writing to such an array changes neither the tensor nor the file.
    """
    if not tensor.external_data:
        return numpy_helper.to_array(tensor)
    content = _mapped(tensor)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    dims = tuple(tensor.dims)
    if content.size != dtype.itemsize * int(np.prod(dims)):
        # several values in a byte
        packed = TensorProto(data_type=tensor.data_type, dims=dims, raw_data=content.tobytes())
        return numpy_helper.to_array(packed)
    if _entry(tensor, TRANSPOSED):
        return content.view(dtype).reshape(dims[::-1]).T
    return content.view(dtype).reshape(dims)


def content_of(tensor: TensorProto) -> bytes | memoryview:
    """The bytes of a tensor's values in their order; those in a file are read as they are used."""
    if not tensor.external_data:
        return numpy_helper.to_array(tensor).tobytes()
    if _entry(tensor, TRANSPOSED):
        return np.ascontiguousarray(values_of(tensor)).reshape(-1).view(np.uint8).data
    return _mapped(tensor).data


def duplicate(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model; it refers to the weights that the model refers to."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def take_in(model: onnx.ModelProto) -> None:
    """Read the weights that the model refers to into it."""
    for tensor in model.graph.initializer:
        if is_outside(tensor):
            tensor.raw_data = bytes(content_of(tensor))
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def move_weights(model: onnx.ModelProto, folder: Path) -> str:
    """Move the weights to a file in `folder`; gives its name, which follows from its content.

    Each tensor leaves memory as soon as it is written. Weights that the model referred to are copied.
    """
    initializers = model.graph.initializer
    large = [tensor for tensor in initializers if is_outside(tensor) or len(tensor.raw_data) >= LEAST_BYTES]
    digest = hashlib.sha256()
    places = []
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / f"{PREFIX}unnamed{SUFFIX}"

    def write(target: Path) -> None:
        with target.open("wb") as file:
            for tensor in large:
                content = content_of(tensor) if is_outside(tensor) else tensor.raw_data
                gap = bytes(-file.tell() % ALIGNED)
                file.write(gap)
                places.append((file.tell(), len(content)))
                file.write(content)
                digest.update(gap)
                digest.update(content)
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
    names = dict.fromkeys(ExternalDataInfo(tensor).location for tensor in model.graph.initializer if is_outside(tensor))
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


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """All tensors in a model: stored ones and attributes, of branches, loop bodies and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if nodes:
            for attribute in nodes.pop().attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors
                if attribute.type == onnx.AttributeProto.GRAPH:
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)
            continue
        graph = graphs.pop()
        yield from graph.initializer
        nodes.extend(graph.node)


def _mapped(tensor: TensorProto) -> Array:
    path = Path(_entry(tensor, FOLDER)) / _entry(tensor, "location")
    start, length = int(_entry(tensor, "offset")), int(_entry(tensor, "length"))
    # pages that are written to are copied, so that libraries which want writable arrays get them
    return np.asarray(np.memmap(path, np.uint8, "c", start, (length,)))


def _entry(tensor: TensorProto, key: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), "")
