"""Layers that the user names: to be left alone, or to stay in float."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from autocompress.errors import ProfileError, nearest

# a network has hundreds of names: all of them would be no help
ELSEWHERE = "`autocompress inspect` lists the layers."


def matches_pattern(layer: str, patterns: Sequence[str]) -> bool:
    """True when the layer, or a part that it lies inside, has one of these names; `*` and `?` stand for anything."""
    return any(fnmatchcase(part, pattern) for part in parts_of(layer) for pattern in patterns)


def require_layers(names: Iterable[str], patterns: Sequence[str], where: str) -> None:
    """Check that every pattern names something.

    Raises:
        ProfileError: when one of them is the name of no layer.
    """
    known = [name for name in names if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ProfileError(
                f"there is no layer named {pattern!r}.", where=where, hint=nearest(pattern, known, ELSEWHERE)
            )


def parts_of(layer: str) -> Iterator[str]:
    """The parts that a layer lies inside, from the outermost to itself."""
    names = layer.split(".")
    return (".".join(names[: count + 1]) for count in range(len(names)))
