"""Outputs of a module: every tensor in what it returns, named by its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch

from autocompress.core.runtime import Example
from autocompress.errors import ModelError

# appended to the name of an output that has an input's name, since a graph names every value once
AS_OUTPUT = "_out"


def named_outputs(outputs: Any, example: Example) -> dict[str, torch.Tensor]:
    """The tensors in what a module returns for an example, by name; the chosen ones, if any are.

    Tensors are found in tuples, lists, dicts, named tuples, dataclasses (Hugging Face's `ModelOutput` is both) and
    simple namespaces, nested in any way; None and everything else is left out, such as caches that are objects of a
    class of their own. Of any other object only `logits` is known.

    A name is the path: `logits`, `state.h`, `hidden_states.0`, `1.0`. A single tensor without a name of its own is
    `output`, those of a flat tuple are `output`, `output_1`, ...

    Raises:
        ModelError: when there is no tensor, two have the same name, or a chosen one is not there.
    """
    found = list(_tensors(outputs, ()))
    if not found:
        raise ModelError(
            f"returns a {type(outputs).__name__} without tensors.",
            where="model",
            hint="Return a tensor, or tensors in tuples, lists, dicts or dataclasses.",
        )
    names = _names([path for path, _ in found])
    inputs = example.arrays
    named: dict[str, torch.Tensor] = {}
    for name, (_, tensor) in zip(names, found, strict=True):
        own = f"{name}{AS_OUTPUT}" if name in inputs else name
        if own in named:
            raise ModelError(f"has two outputs named {own!r}.", where="model", hint="Give its outputs other names.")
        named[own] = tensor
    return _chosen(named, example.outputs) if example.outputs else named


def _tensors(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    else:
        for name, inner in _parts(value):
            yield from _tensors(inner, (*path, name))


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(name), inner) for name, inner in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return [(str(place), inner) for place, inner in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, SimpleNamespace):
        return list(vars(value).items())
    logits = getattr(value, "logits", None)
    return [("logits", logits)] if isinstance(logits, torch.Tensor) else []


def _names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    by_position = all(part.isdecimal() for path in paths for part in path)
    if by_position and len(paths) == 1:
        return ["output"]
    if by_position and all(len(path) == 1 for path in paths):
        return ["output", *(f"output_{place}" for place in range(1, len(paths)))]
    return [".".join(path) for path in paths]


def _chosen(named: Mapping[str, torch.Tensor], chosen: Sequence[str]) -> dict[str, torch.Tensor]:
    """The chosen outputs, in the order in which they were chosen; a path stands for all tensors under it."""
    kept: dict[str, torch.Tensor] = {}
    for choice in chosen:
        under = {name: tensor for name, tensor in named.items() if name == choice or name.startswith(f"{choice}.")}
        if not under:
            raise ModelError(f"has no output {choice!r}.", where="outputs", hint=f"It has {', '.join(named)}.")
        kept.update(under)
    return kept


def floating(outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The outputs of floating numbers, as float32; all of them where there is none."""
    kept = {name: tensor.float() for name, tensor in outputs.items() if tensor.is_floating_point()}
    return kept or {name: tensor.float() for name, tensor in outputs.items()}
