"""Outputs of a model by name, and the form in which scores and losses get them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
# the output that built-in scores and losses take where a model has one of this name
LOGITS = "logits"
NUMBERED = re.compile(r"output(_\d+)?")


def main_output(names: Mapping[str, Any]) -> str:
    """The output that built-in scores and losses take: `logits` where there is one, else the first."""
    return LOGITS if LOGITS in names else next(iter(names))


def as_given(named: Mapping[str, T], is_floating: Callable[[T], bool]) -> Any:
    """Outputs as a score or a loss gets them, from arrays or tensors by name.

    - a single one, and `logits` where no other output is floating: the array itself;
    - those of tuples and lists: tuples of arrays, nested as the model's; None stands for what is no tensor;
    - all others: a dict by name.
    """
    if len(named) == 1:
        return next(iter(named.values()))
    if [name for name, value in named.items() if is_floating(value)] == [LOGITS]:
        return named[LOGITS]
    if all(NUMBERED.fullmatch(name) for name in named):
        return tuple(named.values())
    paths = {tuple(name.split(".")): value for name, value in named.items()}
    if all(part.isdecimal() for path in paths for part in path):
        return _nested({tuple(map(int, path)): value for path, value in paths.items()})
    return dict(named)


def _nested(values: Mapping[tuple[int, ...], T]) -> Any:
    if () in values:
        return values[()]
    inner: list[Any] = [None] * (1 + max(path[0] for path in values))
    for place in {path[0] for path in values}:
        inner[place] = _nested({path[1:]: value for path, value in values.items() if path[0] == place})
    return tuple(inner)


def first_of(given: Any) -> Any:
    """The output that built-in scores and losses take, out of what `as_given` gives."""
    if isinstance(given, Mapping):
        return first_of(given[main_output(given)])
    if isinstance(given, tuple):
        return first_of(next(inner for inner in given if inner is not None))
    return given
