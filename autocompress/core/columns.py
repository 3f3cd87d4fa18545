"""Columns of items that are mappings: inputs, targets, and how items become a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.errors import DataError

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
# a model of Hugging Face's that gets them computes a loss of its own and returns it
LOSS_ARGUMENT = "labels"
PAD = "Pad them to one length, or give a collate function that pads: Task(collate=...), or a DataLoader's collate_fn."
RESIZE = "Bring them to one shape in the dataset, or give a DataLoader with a collator that does."
NUMBER = "Number the classes from 0."
TOKENIZE = 'Tokenize first, e.g. tokenizer(texts, padding="max_length", truncation=True).'


@dataclass(frozen=True)
class Columns:
    """Which columns of mapping items are read.

    Args:
        targets: names of the targets; empty for the first of `TARGET_KEYS` that is there.
        inputs: names of columns that are inputs.
        others: True where columns of other names are inputs too if they hold numbers, as for `forward(**kwargs)`.
    """

    targets: tuple[str, ...] = ()
    inputs: frozenset[str] = frozenset()
    others: bool = True

    def targets_in(self, names: Iterable[Any]) -> tuple[str, ...]:
        """The names of the targets among the columns.

        Raises:
            DataError: when one is missing.
        """
        there = [str(name) for name in names]
        if self.targets:
            missing = [name for name in self.targets if name not in there]
            if missing:
                raise DataError(
                    f"has no column {missing[0]!r}, which targets= names; columns: {', '.join(there)}.",
                    where="data",
                    hint="Name columns that every item has.",
                )
            return self.targets
        key = next((name for name in TARGET_KEYS if name in there), None)
        if key is None:
            raise DataError(
                f"items are dicts without a target; keys: {', '.join(there)}.",
                where="data",
                hint=f"Name the target one of {', '.join(TARGET_KEYS)}, or give Task(targets=...).",
            )
        return (key,)

    def takes(self, name: str, *, beside: bool = False) -> bool:
        """True for a column that may be an input.

        `beside` says that the targets lie beside the mapping, not in it.
        """
        if beside:
            return name in self.inputs or self.others
        return name != LOSS_ARGUMENT and (name in self.inputs or (self.others and name not in TARGET_KEYS))


ALL_COLUMNS = Columns()


def as_mapping(item: Any, columns: Columns) -> Any:
    """A dataclass, or a named tuple whose target is not its last field, as a mapping; others as they are."""
    if isinstance(item, Mapping):
        return item
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    fields = getattr(item, "_fields", ())
    if isinstance(item, tuple) and (columns.targets or any(name in TARGET_KEYS for name in fields[:-1])):
        return dict(zip(fields, item, strict=True)) if fields else item
    return item


def prepared(items: Sequence[Any], columns: Columns, numbers: Sequence[int]) -> list[Any]:
    """Items as torch's `default_collate` stacks them: columns that are read, lists as tensors.

    `numbers` are the indices of the items, for errors.

    Raises:
        DataError: when a column that is read holds texts or None, or values of several shapes.
    """
    found = [as_mapping(item, columns) for item in items]
    if all(isinstance(item, Mapping) for item in found):
        targets = columns.targets_in(found[0])
        return _selected(found, columns, targets, numbers)
    if not all(isinstance(item, tuple | list) for item in found):
        return found
    width = {len(item) for item in found}
    if len(width) != 1:
        return found
    places = [_place(found, place, columns, numbers) for place in range(width.pop())]
    return [tuple(row) for row in zip(*places, strict=True)]


def _place(items: Sequence[Any], place: int, columns: Columns, numbers: Sequence[int]) -> list[Any]:
    values = [item[place] for item in items]
    if place == 0 and len(items[0]) == 2 and all(isinstance(value, Mapping) for value in values):
        return _selected(values, columns, None, numbers)
    last = place == len(items[0]) - 1
    what = "the target" if last else f"input {place}"
    problem = _no_numbers(what, values, numbers, is_target=last)
    if problem is not None:
        raise problem
    return _of_one_shape(what, values, numbers, is_target=last)


def _selected(
    items: Sequence[Mapping[Any, Any]], columns: Columns, targets: tuple[str, ...] | None, numbers: Sequence[int]
) -> list[Any]:
    """The items with the columns that are read; `targets` is None where they lie beside the mapping."""
    kept: dict[str, list[Any]] = {}
    problems = []
    for key in items[0]:
        name, is_target = str(key), targets is not None and str(key) in targets
        if not is_target and not columns.takes(name, beside=targets is None):
            continue
        what = f"column {name!r}"
        missing = next((number for number, item in zip(numbers, items, strict=True) if key not in item), None)
        if missing is not None:
            raise DataError(f"item {missing} has no {what}, which others have.", where="data")
        values = [item[key] for item in items]
        problem = _no_numbers(what, values, numbers, is_target=is_target)
        if problem is None:
            kept[name] = _of_one_shape(what, values, numbers, is_target=is_target)
        elif is_target or name in columns.inputs:
            raise problem
        else:
            problems.append(problem)
    if problems and not kept.keys() - set(targets or ()):
        raise problems[0]
    return [dict(zip(kept, row, strict=True)) for row in zip(*kept.values(), strict=True)]


def no_numbers(what: str, value: Any) -> DataError | None:
    """The error for an input column of a batch that holds texts or objects; None where it holds numbers."""
    values = value if isinstance(value, list | tuple) else [value]
    return _no_numbers(what, values, range(len(values)), is_target=False)


def _no_numbers(what: str, values: Sequence[Any], numbers: Sequence[int], *, is_target: bool) -> DataError | None:
    for number, value in zip(numbers, values, strict=True):
        inner = value
        while isinstance(inner, list | tuple) and inner:
            inner = inner[0]
        if isinstance(inner, str) or getattr(getattr(inner, "dtype", None), "kind", "") in ("U", "S"):
            hint = NUMBER if is_target else TOKENIZE
            return DataError(f"{what} holds texts, not numbers.", where="data", hint=hint)
        if inner is None:
            return DataError(f"{what} holds None (item {number}).", where="data", hint="Give every item a value.")
        if not isinstance(inner, list | tuple | Mapping) and not _is_number_like(inner):
            return DataError(
                f"{what} holds {type(inner).__name__} objects, not arrays of numbers.",
                where="data",
                hint="Turn them into arrays in the dataset; images for example with a transform that gives tensors.",
            )
    return None


def _is_number_like(value: Any) -> bool:
    return isinstance(value, int | float) or hasattr(value, "detach") or getattr(value, "dtype", None) is not None


def _of_one_shape(what: str, values: Sequence[Any], numbers: Sequence[int], *, is_target: bool) -> list[Any]:
    """The values, lists of numbers as tensors; a list of arrays as a target stays, as several targets."""
    import torch

    if is_target and all(isinstance(value, Mapping) for value in values):
        return _of_several(what, values, numbers)
    found: list[Any] = []
    for number, value in zip(numbers, values, strict=True):
        if is_target and isinstance(value, tuple):
            found.append(tuple(torch.as_tensor(part) if isinstance(part, list) else part for part in value))
            continue
        if not isinstance(value, tuple | list) or (is_target and any(getattr(part, "shape", ()) for part in value)):
            found.append(value)
            continue
        try:
            # an empty list is one of whole numbers, as the others are
            found.append(torch.from_numpy(np.asarray(value) if len(value) else np.zeros(0, dtype=np.int64)))
        except (ValueError, TypeError, RuntimeError):
            raise DataError(
                f"{what} holds lists of unequal lengths inside item {number}.", where="data", hint=PAD
            ) from None
    shapes = [tuple(value.shape) if hasattr(value, "shape") else None for value in found]
    other = next((place for place, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None and shapes[0] is not None and shapes[other] is not None:
        one, two = (_size(shapes[place]) for place in (0, other))
        hint = PAD if len(shapes[0]) < 2 else RESIZE
        raise DataError(
            f"{what} has {one} in item {numbers[0]} and {two} in item {numbers[other]}.", where="data", hint=hint
        )
    return found


def _of_several(what: str, values: Sequence[Any], numbers: Sequence[int]) -> list[Any]:
    """Targets that are dicts of the same names."""
    columns = {}
    for name in values[0]:
        missing = next((number for number, value in zip(numbers, values, strict=True) if name not in value), None)
        if missing is not None:
            raise DataError(f"item {missing} has no {name!r} in {what}, which others have.", where="data")
        columns[name] = _of_one_shape(f"{what}, {name!r},", [value[name] for value in values], numbers, is_target=False)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _size(shape: Any) -> str:
    return f"length {shape[0]}" if len(shape) == 1 else f"shape {shape}"


def stacked(what: str, value: Any, rows: int | None) -> Any:
    """A batch's column that is a list of lists or of arrays, as an array with a row per item.

    A list with an array for each position, as `default_collate` makes of lists, is turned to items first; `rows`, the
    number of items where it is known, tells it from a list with an array for each item.

    Raises:
        DataError: when lengths differ, or it cannot be told what the list's first axis is.
    """
    if not isinstance(value, list | tuple) or not value:
        return value
    sizes = sorted({len(part) for part in value if hasattr(part, "__len__") and np.ndim(part) > 0})
    if len(sizes) > 1:
        raise DataError(f"{what} has lengths from {sizes[0]} to {sizes[-1]}.", where="data", hint=PAD)
    if not all(getattr(part, "shape", ()) for part in value):
        return value
    arrays = [np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in value]
    transposed = rows is not None and sizes == [rows]
    if transposed and rows == len(arrays) and rows != 1:
        raise DataError(
            f"{what} is a list of {rows} arrays of length {rows}, so it is not clear which axis is the items.",
            where="data",
            hint="Give one array in the collate function, with a row per item.",
        )
    return np.stack(arrays, axis=1 if transposed else 0)
