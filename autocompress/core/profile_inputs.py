"""The key `inputs` of a profile: the shapes of the model's inputs, by name or by place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autocompress.core.artifact import TensorSpec, input_name
from autocompress.errors import ProfileError

FORM = "Write input_ids: [1, 128], the batch first, or input_ids: 1x128:int64."


def parse_inputs(given: Any) -> tuple[TensorSpec, ...]:
    """The specs in `{input_ids: [1, 128], ...}` or in a list of texts, `["1x3x32x32:float32", ...]`.

    By name a shape is a list of sizes, whose dtype is left open, or a text. In a list the dtype defaults to float32.

    Raises:
        ProfileError, UsageError: when it is neither, or one of the shapes is none.
    """
    if isinstance(given, Mapping):
        return tuple(_named(str(name), shape) for name, shape in given.items())
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise ProfileError(f"are no shapes by name: {given!r}.", where="inputs", hint=FORM)
    return tuple(TensorSpec.parse(text, input_name(place), where=f"inputs.{place}") for place, text in enumerate(given))


def _named(name: str, shape: Any) -> TensorSpec:
    where = f"inputs.{name}"
    if isinstance(shape, str) and "=" not in shape:
        return TensorSpec.parse(shape, name, where=where, default_dtype="")
    if isinstance(shape, list | tuple) and any(isinstance(size, list | tuple | str) for size in shape):
        raise ProfileError(
            "has several shapes; one shape for each input is what this version measures at.", where=where, hint=FORM
        )
    sizes = shape if isinstance(shape, list | tuple) else ()
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise ProfileError(f"is no shape: {shape!r}.", where=where, hint=FORM)
    return TensorSpec(name, "", tuple(sizes))
