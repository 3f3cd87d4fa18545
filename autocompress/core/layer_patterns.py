"""Name patterns for layers that the user wants left alone or kept in float."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from autocompress.errors import ProfileError, nearest

# most names in an error message: a network has hundreds, and all of them would be no help
ELSEWHERE = "`autocompress inspect` lists the layers."


def matches_pattern(layer: str, patterns: Sequence[str]) -> bool:
    """True when the layer, or a module that contains it, has a name that fits one of the patterns.

    In patterns `*` and `?` stand for anything.
    """
    return any(fnmatchcase(part, pattern) for part in parts_of(layer) for pattern in patterns)


def require_layers(names: Iterable[str], patterns: Sequence[str], where: str) -> None:
    """Check that every pattern names at least one layer.

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
    """Names of the modules that contain a layer, from the outermost to the layer itself."""
    names = layer.split(".")
    return (".".join(names[: count + 1]) for count in range(len(names)))
