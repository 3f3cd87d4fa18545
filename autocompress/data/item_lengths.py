"""Axes in which data or a profile's shapes have several sizes, and whether a file leaves them free."""

from __future__ import annotations

from collections.abc import Iterator

from autocompress.core.artifact import Artifact, TensorSpec, input_name
from autocompress.core.dynamic_axes import Axis
from autocompress.core.padded_source import PaddedSource
from autocompress.core.profile_inputs import InputSet
from autocompress.core.task import Task
from autocompress.errors import DataError

# sizes at which a file is compared with the module at most: the shortest, one in the middle, the longest
COMPARED = 3


def varying_axes(task: Task | None, sets: tuple[InputSet, ...]) -> dict[Axis, tuple[int, ...]]:
    """The axes in which items, or a profile's sets of shapes, have several sizes, with some of these."""
    found = {axis: _some(sizes) for _, source in _sources(task) for axis, sizes in _sizes(source).items()}
    shapes: dict[str, list[TensorSpec]] = {}
    for spec in (spec for one_set in sets for spec in one_set):
        shapes.setdefault(spec.name, []).append(spec)
    for name, ones in shapes.items():
        for place, sizes in enumerate(zip(*(one.shape for one in ones), strict=False)):
            if place > 0 and len(set(sizes)) > 1:
                known = (*found.get((name, place), ()), *(size for size in sizes if size is not None))
                found[name, place] = tuple(sorted(set(known)))
    return found


def require_free(task: Task | None, artifact: Artifact) -> None:
    """Raise DataError where items have several sizes in an axis that the file has fixed."""
    specs = {spec.name: spec for spec in artifact.inputs}
    for field, source in _sources(task):
        for (name, place), sizes in _sizes(source).items():
            spec = specs.get(name)
            if spec is None or place in spec.free_axes:
                continue
            raise DataError(
                f"items have {sizes[0]} to {sizes[-1]} entries in axis {place} of input {name!r}, which is fixed at "
                f"{spec.shape[place]} in the file.",
                where=f"{task.name if task else 'data'}: {field}",
                hint=f'Pad all items to {spec.shape[place]}, or export with this axis free: dynamic={{"{name}": '
                f'{{{place}: "sequence"}}}} (--dynamic {name}:{place}=sequence) says why it is not.',
            )


def told(task: Task | None, sets: tuple[InputSet, ...]) -> tuple[str, ...]:
    """A sentence on items of different lengths; none where all have one."""
    for field, source in _sources(task):
        for (name, place), sizes in _sizes(source).items():
            timed = "calls are timed at the profile's shapes" if sets else "calls are timed at the longest"
            return (
                f"Items of {field} have {sizes[0]} to {sizes[-1]} entries in axis {place} of {name}: they are judged "
                f"at their own length, padded to the longest for training and calibration, and {timed}.",
            )
    return ()


def _sources(task: Task | None) -> Iterator[tuple[str, PaddedSource]]:
    for field in ("test", "val", "train") if task else ():
        source = getattr(task, field)
        if isinstance(source, PaddedSource):
            yield field, source


def _sizes(source: PaddedSource) -> dict[Axis, tuple[int, ...]]:
    sizes = source.sizes()
    return {(input_name(key) if isinstance(key, int) else key, place): own for (key, place), own in sizes.items()}


def _some(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return sizes if len(sizes) <= COMPARED else (sizes[0], sizes[len(sizes) // 2], sizes[-1])
