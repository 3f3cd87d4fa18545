"""Axes that stay free in an exported file: found by calls at other sizes, named, and compared."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx
import torch
from torch import nn

from autocompress.core.artifact import TensorSpec
from autocompress.core.dynamic_axes import Axis
from autocompress.core.runtime import Example
from autocompress.data.module import call
from autocompress.errors import AutocompressError, ExportError, ModelError
from autocompress.runtimes.onnx_export import tracking

SEQUENCE, IMAGE = "sequence", ("height", "width")
# rank of inputs whose last axes are height and width
IMAGE_RANK = 4
# share of a size from which on another one is far from it
FAR = 0.1
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def movable_axes(module: nn.Module, example: Example) -> tuple[Axis, ...]:
    """The axes that were asked for, or that are tried, at which the module takes another size.

    Axes of one size are moved together first, since most of them are one in meaning, then each alone.

    Raises:
        ExportError: when the module does not take another size in a declared axis.
    """
    tried = example.dynamic.tried(example.arrays)
    together: dict[int, list[Axis]] = {}
    for axis in tried:
        together.setdefault(_size(example, axis), []).append(axis)
    moved = {axis for axes in together.values() for axis in _moved(module, example, axes)}
    if example.dynamic.declared:
        _require_moved(module, example, [axis for axis in tried if axis not in moved])
    return tuple(axis for axis in tried if axis in moved)


def _moved(module: nn.Module, example: Example, axes: Sequence[Axis]) -> Sequence[Axis]:
    if _is_free(module, example, axes):
        return axes
    return [axis for axis in axes if _is_free(module, example, [axis])] if len(axes) > 1 else ()


def _is_free(module: nn.Module, example: Example, axes: Sequence[Axis]) -> bool:
    """True when the module takes a size that data or profile have, or one that is far from the example's."""
    sizes = [size for size in _other_sizes(example, axes) if _tells(size, example, axes)]
    return next(_at_sizes(module, example, axes, sizes), None) is not None


def at_other_sizes(
    module: nn.Module, example: Example, axes: Sequence[Axis]
) -> Iterator[tuple[Example, dict[str, torch.Tensor]]]:
    """Examples with another size in all of these axes that the module takes, with its outputs for them."""
    yield from _at_sizes(module, example, axes, _other_sizes(example, axes))


def _at_sizes(
    module: nn.Module, example: Example, axes: Sequence[Axis], sizes: Sequence[int]
) -> Iterator[tuple[Example, dict[str, torch.Tensor]]]:
    for size in sizes:
        other = example.with_sizes(dict.fromkeys(axes, size))
        try:
            outputs = call(module, other)
        except ModelError:
            continue
        yield other, outputs


def is_varying(other: Example, example: Example, axes: Sequence[Axis]) -> bool:
    """True when the size of `other` in one of these axes is one that data or profile have."""
    return any(_size(other, axis) in example.dynamic.varying.get(axis, ()) for axis in axes)


def is_far(other: Example, example: Example, axes: Sequence[Axis]) -> bool:
    """True when the size of `other` in these axes is far from the example's.

    Behind layers that take every n-th place a size close to the example's gives outputs of the same size.
    """
    return _is_far(_size(other, axes[0]), example, axes)


def _is_far(size: int, example: Example, axes: Sequence[Axis]) -> bool:
    return all(abs(size - _size(example, axis)) >= FAR * _size(example, axis) for axis in axes)


def _tells(size: int, example: Example, axes: Sequence[Axis]) -> bool:
    return _is_far(size, example, axes) or any(size in example.dynamic.varying.get(axis, ()) for axis in axes)


def without_ones(module: nn.Module, example: Example, axes: Sequence[Axis]) -> Example:
    """The example to export with: the exporter would take an axis of size one for a constant."""
    ones = [axis for axis in axes if _size(example, axis) == 1]
    return next((other for other, _ in at_other_sizes(module, example, ones)), example) if ones else example


def require_undeclared(example: Example, error: AutocompressError, axes: Sequence[Axis] = ()) -> None:
    """Raise ExportError for a failed export, or for a file that differs, where free axes are declared."""
    if example.dynamic.declared:
        named = ", ".join(f"{name}:{place}" for name, place in axes or example.dynamic.declared)
        raise ExportError(
            f"cannot be exported with {named} free: it {error.message}",
            where=error.where or "model",
            hint=error.hint or "Leave them out of dynamic=.",
        ) from error


def _other_sizes(example: Example, axes: Sequence[Axis]) -> Sequence[int]:
    """Sizes to try: those of data and profile, one more and less, then multiples that nets divide by."""
    own = {_size(example, axis) for axis in axes}
    known = [size for axis in axes for size in example.dynamic.varying.get(axis, ())]
    size = max(own)
    sizes = dict.fromkeys((*known, size + 1, size - 1, size // 2, size * 2, size + 32, size - 32))
    # an axis of size one is not told from a constant
    return [one for one in sizes if one > 1 and one not in own]


def _require_moved(module: nn.Module, example: Example, stuck: Sequence[Axis]) -> None:
    for axis in stuck:
        size = next(size for size in _other_sizes(example, [axis]) if _tells(size, example, [axis]))
        entered: list[str] = []
        try:
            with tracking(module, entered):
                call(module, example.with_sizes({axis: size}))
        except ModelError as error:
            layer = f"layer {entered[-1]!r} ({type(module.get_submodule(entered[-1])).__name__})" if entered else ""
            raise ExportError(
                f"axis {axis[1]} of input {axis[0]!r} cannot be free: with {size} in place of "
                f"{_size(example, axis)} the model {error.message}",
                where=", ".join(filter(None, (error.where, layer))),
                hint=_along(module, example, axis) or "Leave this axis out of dynamic=.",
            ) from error


def _along(module: nn.Module, example: Example, axis: Axis) -> str:
    """A hint that names axes which have to change with this one; empty where that does not help."""
    alike = [
        (name, place)
        for name, array in example.arrays.items()
        for place in range(1, array.ndim)
        if array.shape[place] == _size(example, axis)
    ]
    if len(alike) < 2 or next(at_other_sizes(module, example, alike), None) is None:
        return ""
    others = ", ".join(f"{name}:{place}" for name, place in alike if (name, place) != axis)
    return f"It changes together with {others}: declare that too."


def _size(example: Example, axis: Axis) -> int:
    return int(example.arrays[axis[0]].shape[axis[1]])


def name_axes(model: onnx.ModelProto, module: nn.Module, example: Example, axes: Sequence[Axis]) -> None:
    """Name those of the axes that are free in an exported graph.

    Axes that the exporter found to be equal share a name, and so do those of one size that the module only takes
    together.

    Raises:
        ExportError: when a declared axis became a constant, or one axis was declared with two names.
    """
    dims = {
        (value.name, place): dim
        for value in model.graph.input
        for place, dim in enumerate(value.type.tensor_type.shape.dim)
        if (value.name, place) in axes
    }
    free = tuple(axis for axis in axes if dims[axis].dim_param)
    if any(_size(example, axis) == 1 for axis in axes if axis not in free):
        raise ExportError("an axis of size 1 became a constant of another size.", where="model")
    for axis in axes if example.dynamic.declared else ():
        if axis not in free:
            raise ExportError(
                f"axis {axis[1]} of input {axis[0]!r} cannot be free: torch.export makes its size a constant "
                f"({dims[axis].dim_value}).",
                where="model",
                hint="Look for int(), lists or fixed shapes that forward() makes of this size, or leave the axis out.",
            )
    symbols: dict[str, list[Axis]] = {}
    for axis in free:
        symbols.setdefault(dims[axis].dim_param, []).append(axis)
    renamed = _names(_united(module, example, symbols), example)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                # sizes of outputs may be expressions
                dim.dim_param = SYMBOL.sub(lambda found: renamed.get(found[0], found[0]), dim.dim_param)


def _united(module: nn.Module, example: Example, symbols: Mapping[str, list[Axis]]) -> dict[str, list[Axis]]:
    """All axes by each symbol; symbols of one size that the module only takes together have the same ones."""
    united = dict(symbols)
    for axes in symbols.values():
        size = _size(example, axes[0])
        alike = [other for other, theirs in symbols.items() if _size(example, theirs[0]) == size]
        if len(alike) > 1 and next(at_other_sizes(module, example, axes), None) is None:
            everything = [axis for other in alike for axis in symbols[other]]
            united |= dict.fromkeys(alike, everything)
    return united


def _names(symbols: Mapping[str, Sequence[Axis]], example: Example) -> dict[str, str]:
    """A name for each symbol: the declared one, else what its axis is."""
    declared = example.dynamic.declared or {}
    names: dict[tuple[Axis, ...], str] = {}
    for axes in map(tuple, symbols.values()):
        chosen = list(dict.fromkeys(declared[axis] for axis in axes if declared.get(axis)))
        if len(chosen) > 1:
            listed = ", ".join(f"{name}:{place}" for name, place in axes)
            raise ExportError(
                f"the axes {listed} are one to the model, and have different names: {', '.join(chosen)}.",
                where="dynamic",
                hint="Give them one name.",
            )
        names.setdefault(axes, chosen[0] if chosen else _free_name(axes[0], example, names.values()))
    return {symbol: names[tuple(axes)] for symbol, axes in symbols.items()}


def _free_name(axis: Axis, example: Example, taken: Collection[str]) -> str:
    name, place = axis
    rank = example.arrays[name].ndim
    kind = IMAGE[place - rank] if rank >= IMAGE_RANK and place >= rank - len(IMAGE) else SEQUENCE
    taken = {*taken, *(example.dynamic.declared or {}).values()}
    numbered = (f"{name}_{kind}_{number}" for number in range(2, len(taken) + 3))
    return next(choice for choice in (kind, f"{name}_{kind}", *numbered) if choice not in taken)


def axes_by_name(specs: Sequence[TensorSpec]) -> dict[str, list[Axis]]:
    """The free axes of a file's inputs beside the batch, by their names."""
    named: dict[str, list[Axis]] = {}
    for spec in specs:
        for place in spec.free_axes:
            named.setdefault(spec.axis(place), []).append((spec.name, place))
    return named
