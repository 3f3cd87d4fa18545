"""Axes beside the batch that are to stay free in the file, as the user or the data ask for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autocompress.core.source import Array
from autocompress.errors import UsageError, nearest

# name of an input, and the place of one of its axes; the batch has place 0
Axis = tuple[str, int]
FORM = 'Write dynamic={"input_ids": {1: "sequence"}} (--dynamic input_ids:1=sequence), or () for none (--dynamic none).'
NONE = "none"
# what floating inputs of more dimensions hold is taken for images, whose networks are mostly made for one size
LARGEST_RANK = 3
TEXT = re.compile(r"([^:=]+):([0-9]+)(?:=([A-Za-z_][A-Za-z0-9_]*))?")


@dataclass(frozen=True)
class DynamicAxes:
    """Which axes beside the batch are to stay free in the exported file.

    `declared` are the axes that must be free, with their names in the file (empty where one is to be found); None
    leaves the choice to `tried`. `varying` are axes in which data or profile have several sizes, with these sizes: they
    are tried in any case, and the file is compared with the module at them.
    """

    declared: Mapping[Axis, str] | None = None
    varying: Mapping[Axis, tuple[int, ...]] = field(default_factory=dict)

    @staticmethod
    def parse(given: Any) -> DynamicAxes:
        """The axes from `dynamic=`: names by axis by input, texts such as `input_ids:1=sequence`, or None.

        Raises:
            UsageError: when it is none of these.
        """
        if given is None or isinstance(given, DynamicAxes):
            return given or DynamicAxes()
        if isinstance(given, Mapping):
            pairs = [_named(str(name), axes) for name, axes in given.items()]
            return DynamicAxes({axis: name for found in pairs for axis, name in found.items()})
        texts = (given,) if isinstance(given, str) else given
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise _unreadable(given)
        if NONE in texts and len(texts) > 1:
            raise UsageError("takes none alone.", where="dynamic", hint=FORM)
        return DynamicAxes(dict(_from_text(text) for text in texts if text != NONE))

    def require_in(self, arrays: Mapping[str, Array]) -> None:
        """Raise UsageError unless all declared axes are axes of these inputs, beside the batch."""
        for name, place in self.declared or {}:
            if name not in arrays:
                raise UsageError(f"there is no input {name!r}.", where="dynamic", hint=nearest(name, arrays))
            rank = arrays[name].ndim
            if not 0 < place < rank:
                known = (
                    f"It has axes 1 to {rank - 1} beside the batch." if rank > 1 else "It has no axis but the batch."
                )
                raise UsageError(f"input {name!r} has no axis {place} to free.", where="dynamic", hint=known)

    def tried(self, arrays: Mapping[str, Array]) -> tuple[Axis, ...]:
        """The axes to try as free ones.

        Without a declaration these are the ones of whole numbers (tokens, masks) and of floating inputs of up to three
        dimensions (features over time, audio), and those that vary. Of size 1 only what was asked for is tried.
        """
        if self.declared is not None:
            return tuple(self.declared)
        return tuple(
            (name, place)
            for name, array in arrays.items()
            for place in range(1, array.ndim)
            if (name, place) in self.varying
            or (array.shape[place] > 1 and (array.dtype.kind != "f" or array.ndim <= LARGEST_RANK))
        )


# for graphs that are measured at one shape and thrown away
ALL_FIXED = DynamicAxes({})


def _named(name: str, axes: Any) -> dict[Axis, str]:
    named = axes if isinstance(axes, Mapping) else dict.fromkeys(axes, "") if isinstance(axes, list | tuple) else None
    if named is None or not all(type(place) is int for place in named):
        raise _unreadable({name: axes})
    return {(name, place): _label(label) for place, label in named.items()}


def _label(label: Any) -> str:
    # the first axis of every input and what follows it have the name of the batch
    if not isinstance(label, str) or label == "batch" or not (label.isidentifier() or label == ""):
        raise UsageError(f"{label!r} is no name of an axis.", where="dynamic", hint=FORM)
    return label


def _from_text(text: str) -> tuple[Axis, str]:
    found = TEXT.fullmatch(text.strip())
    if found is None:
        raise _unreadable(text)
    return (found[1], int(found[2])), _label(found[3] or "")


def _unreadable(given: Any) -> UsageError:
    return UsageError(f"{given!r} names no axes of inputs.", where="dynamic", hint=FORM)
