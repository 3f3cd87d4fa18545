"""The key `inputs` of a profile: one or several sets of shapes of the model's inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autocompress.core.artifact import TensorSpec, input_name
from autocompress.errors import ProfileError

FORM = "Write input_ids: [1, 128], the batch first, or input_ids: 1x128:int64; several shapes: [[1, 32], [1, 128]]."

# the shapes of all inputs at one time
InputSet = tuple[TensorSpec, ...]


def parse_inputs(given: Any) -> tuple[InputSet, ...]:
    """The sets of shapes, the smallest first, in what a profile gives as `inputs`; see `sets_of`.

    That is `{input_ids: [1, 128], ...}`, `{input_ids: [[1, 32], [1, 128]], ...}`, a list of such mappings, or a list of
    texts, `["1x3x32x32:float32", ...]`. By name a shape is a list of sizes, whose dtype is left open, or a text. In a
    list of texts the dtype defaults to float32.

    Raises:
        ProfileError, UsageError: when it is none of these, or one of the shapes is none.
    """
    if isinstance(given, Mapping):
        return sets_of({str(name): _named(str(name), shapes) for name, shapes in given.items()})
    if isinstance(given, list | tuple) and given and all(isinstance(one, Mapping) for one in given):
        return ordered(one_set for mapping in given for one_set in parse_inputs(mapping))
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise ProfileError(f"are no shapes by name: {given!r}.", where="inputs", hint=FORM)
    specs = [TensorSpec.parse(text, input_name(place), where=f"inputs.{place}") for place, text in enumerate(given)]
    return sets_of(by_name(specs))


def by_name(specs: Sequence[TensorSpec]) -> dict[str, list[TensorSpec]]:
    """The shapes of each input, in the order in which they were given."""
    found: dict[str, list[TensorSpec]] = {}
    for spec in specs:
        found.setdefault(spec.name, []).append(spec)
    return found


def sets_of(shapes: Mapping[str, Sequence[TensorSpec]]) -> tuple[InputSet, ...]:
    """The sets of shapes, the smallest first: the k-th set has the k-th shape of each input.

    An input with a single shape has it in every set.

    Raises:
        ProfileError: when two inputs have several shapes, and not equally many.
    """
    several = {name: len(ones) for name, ones in shapes.items() if len(ones) > 1}
    if len(set(several.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in several.items())
        raise ProfileError(
            f"give different numbers of shapes: {counts}.",
            where="inputs",
            hint="Give each input one shape, or as many as the others: the k-th ones belong together.",
        )
    count = max((len(ones) for ones in shapes.values()), default=0)
    return ordered(tuple(ones[place % len(ones)] for ones in shapes.values()) for place in range(count))


def ordered(sets: Iterable[InputSet]) -> tuple[InputSet, ...]:
    """The sets of shapes by how many values they hold, the smallest first; each once, and no empty one."""
    different = {tuple((spec.name, spec.shape) for spec in one_set): one_set for one_set in sets if one_set}
    return tuple(sorted(different.values(), key=_values))


def names_of(sets: Sequence[InputSet]) -> tuple[str, ...]:
    """A name for each of several sets, the sizes of the inputs whose shapes differ.

    A single set has the empty name. It is `1x32` where all of these have the same shape in each set, else
    `input_ids=1x32, image=1x3x8x8`.
    """
    if len(sets) < 2:
        return ("",) * len(sets)
    shapes = [{spec.name: _sizes(spec) for spec in one_set} for one_set in sets]
    names = dict.fromkeys(name for one in shapes for name in one)
    differing = [name for name in names if len({one.get(name) for one in shapes}) > 1] or list(names)
    short = all(len({one.get(name) for name in differing}) == 1 for one in shapes)
    return tuple(
        one[differing[0]] if short else ", ".join(f"{name}={one[name]}" for name in differing if name in one)
        for one in shapes
    )


def to_json(sets: Sequence[InputSet]) -> list[dict[str, str]]:
    """The sets as `parse_inputs` reads them."""
    return [{spec.name: str(spec).partition("=")[2] for spec in one_set} for one_set in sets]


def _sizes(spec: TensorSpec) -> str:
    return str(replace(spec, dtype="")).partition("=")[2]


def _values(one_set: InputSet) -> int:
    return sum(math.prod(size or 1 for size in spec.shape) for spec in one_set)


def _named(name: str, shapes: Any) -> list[TensorSpec]:
    if isinstance(shapes, list | tuple) and any(isinstance(one, list | tuple | str) for one in shapes):
        return [_one(name, shape) for shape in shapes]
    return [_one(name, shapes)]


def _one(name: str, shape: Any) -> TensorSpec:
    where = f"inputs.{name}"
    if isinstance(shape, str) and "=" not in shape:
        return TensorSpec.parse(shape, name, where=where, default_dtype="")
    sizes = shape if isinstance(shape, list | tuple) else ()
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise ProfileError(f"is no shape: {shape!r}.", where=where, hint=FORM)
    return TensorSpec(name, "", tuple(sizes))
