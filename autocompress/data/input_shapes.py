"""The shapes that a file is timed at: those that were asked for, else those of the data, else its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, align
from autocompress.core.source import Array
from autocompress.data.example_inputs import made_up_arrays
from autocompress.errors import UsageError, nearest

HOW = "Shapes are given with --input or with inputs: in the profile."


def timed_examples(
    artifact: Artifact, profile: Profile, data: Example | None, baseline: Artifact | None = None
) -> dict[str, Example | None]:
    """The inputs that calls of a file are timed with, for each set of shapes in the profile, by its name.

    The smallest come first; see `timed_example`, which raises what this raises.
    """
    batch = profile.protocol.batch
    return {name: timed_example(artifact, asked, data, batch, baseline) for name, asked in profile.input_sets.items()}


def timed_example(
    artifact: Artifact, asked: Sequence[TensorSpec], data: Example | None, batch: int, baseline: Artifact | None = None
) -> Example | None:
    """The inputs that calls of a file and of its baseline are timed with, at the profile's batch.

    `asked` are the shapes of the command line and the profile, `data` are items of the data. An input that neither
    gives keeps its own shape, in which dimensions of one name have one size. Values are those of the data where these
    have the shape, else made up. None where every file can be fed by its own spec alone.

    Raises:
        FreeDimensionError: when a dimension beside the batch is free and nothing gives its size.
        UsageError: when an asked shape does not fit the file.
        DataError: when the data do not fit it.
    """
    specs = artifact.inputs
    if not asked and data is not None:
        return data
    if not asked and not any(spec.free_axes for one in (artifact, baseline) if one for spec in one.inputs):
        return None
    shapes = _by_input(specs, asked, str(artifact.path))
    for spec in (spec for spec in specs if spec.name in shapes):
        _require_fit(spec, shapes[spec.name], batch, str(artifact.path))
    given = {} if data is None else align(data.with_batch(batch).inputs, specs, where="data")
    sizes = _named_sizes(specs, shapes, str(artifact.path))
    arrays: dict[str, Array] = {}
    for spec in specs:
        sized = _sized(spec, shapes.get(spec.name), sizes)
        array = given.get(spec.name)
        # where nothing says how large it is, the data do
        if array is None or not (sized.free_axes or array.shape[1:] == sized.shape[1:]):
            array = made_up_arrays([sized], batch)[spec.name]
        arrays[spec.name] = array
    return Example(arrays)


def _by_input(specs: Sequence[TensorSpec], asked: Sequence[TensorSpec], where: str) -> dict[str, TensorSpec]:
    """The asked shapes by the name of the file's input; those without a name go by their place."""
    names = [spec.name for spec in specs]
    found: dict[str, TensorSpec] = {}
    for place, shape in enumerate(asked):
        name = names[place] if shape.name not in names and shape.has_no_name and place < len(names) else shape.name
        if name not in names:
            raise UsageError(f"has no input {shape.name!r}.", where=where, hint=f"{nearest(shape.name, names)} {HOW}")
        found[name] = shape
    return found


def _require_fit(spec: TensorSpec, shape: TensorSpec, batch: int, where: str) -> None:
    """Raise UsageError unless an asked shape fits the input of the file."""
    if len(shape.shape) != len(spec.shape):
        raise UsageError(
            f"input {spec.name} has {len(spec.shape)} dimensions, the shape {shape} has {len(shape.shape)}.",
            where=where,
            hint=HOW,
        )
    if shape.dtype not in ("", spec.dtype):
        advice = replace(shape, name=spec.name, dtype=spec.dtype)
        raise UsageError(
            f"input {spec.name} takes {spec.dtype}, not {shape.dtype}.", where=where, hint=f"Give {advice}."
        )
    for place, (own, size) in enumerate(zip(spec.shape, shape.shape, strict=True)):
        if own is not None and own != size:
            raise UsageError(
                f"dimension {place + 1} of input {spec.name} is fixed at {own}, the shape {shape} says {size}.",
                where=where,
                hint=f"{HOW} A run frees axes in the file with dynamic= (--dynamic {spec.name}:{place}=sequence).",
            )
    if spec.shape and spec.shape[0] is None and shape.shape[0] not in (1, batch):
        raise UsageError(
            f"the shape {shape} has a batch of {shape.shape[0]}, the profile measures at {batch}.",
            where=where,
            hint="Give a first dimension of 1, or set protocol.batch in the profile.",
        )


def _named_sizes(specs: Sequence[TensorSpec], shapes: Mapping[str, TensorSpec], where: str) -> dict[str, int]:
    """Sizes of the dimensions that have a name in the file, from the asked shapes; the batch is left out."""
    sizes: dict[str, int] = {}
    for spec in (spec for spec in specs if spec.name in shapes):
        for place in spec.free_axes:
            name, size = spec.axis(place), shapes[spec.name].shape[place]
            assert size is not None
            if name and sizes.setdefault(name, size) != size:
                raise UsageError(
                    f"the shapes give the dimension {name} the sizes {sizes[name]} and {size}.", where=where, hint=HOW
                )
    return sizes


def _sized(spec: TensorSpec, shape: TensorSpec | None, sizes: Mapping[str, int]) -> TensorSpec:
    """The spec with the sizes that are known; a free batch stays free."""
    if shape is not None:
        return replace(spec, shape=(*spec.shape[:1], *shape.shape[1:]))
    known = (sizes.get(spec.axis(place)) if place in spec.free_axes else size for place, size in enumerate(spec.shape))
    return replace(spec, shape=tuple(known))
