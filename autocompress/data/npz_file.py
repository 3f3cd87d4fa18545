"""Data in a NumPy archive: `x_test`, `y_test` and optionally the arrays of `train` and `val`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from autocompress.core.source import Array, ArraySource, Inputs
from autocompress.core.task import Task
from autocompress.data.normalize import Normalize, is_image
from autocompress.errors import DataError, nearest

PARTS = ("test", "train", "val")
CHANNELS = (1, 3, 4)
_KEYS = (*(f"{side}_{part}" for part in PARTS for side in "xy"), "mean", "std")
_FORM = "Save it with numpy.savez(FILE, x_test=..., y_test=...)."
_CHUNK_ITEMS = 4096


def read_npz(path: Path) -> Task:
    """The task in an archive, scored by top-1.

    Keys: `x_test` and `y_test`; optional `x_train`, `y_train`, `x_val`, `y_val`. Several inputs are keys like
    `x_test.input_ids` and go to the model by name. Labels are whole numbers, `(n,)` or `(n, 1)`.

    Arrays go to the model as they are, except for uint8 arrays of 3 or 4 dimensions, which are images:
    `(n, h, w)` gets a channel, `(n, h, w, c)` with 1, 3 or 4 channels is turned to `(n, c, h, w)`, and
    `(n, c, h, w)` stays. They are kept as bytes and given out as float32, `(value / 255 - mean) / std`, with
    the optional keys `mean` and `std`, per channel or one number, of values between 0 and 1.

    Raises:
        DataError: when the file or a key in it cannot be used.
    """
    with _open(path) as archive:
        names = {key: _parse(key, path) for key in archive.files if key not in ("mean", "std")}
        for key in ("x_test", "y_test"):
            if not any(name.split(".")[0] == key for name in names):
                held = f"It holds {', '.join(archive.files)}." if archive.files else "It holds nothing."
                raise DataError(f"has no {key}.", where=str(path), hint=f"{held} {_FORM}")
        sources = {part: _part(archive, names, part, path) for part in PARTS}
        given = [source for source in sources.values() if source is not None]
        transform = _normalize(archive, [a for source in given for _, a in _named(source.inputs)], path)
    _check_same_inputs(sources, path)
    done = {p: None if s is None else replace(s, transform=transform) for p, s in sources.items()}
    return Task(test=done["test"], train=done["train"], val=done["val"], name=str(path))


def _open(path: Path) -> NpzFile:
    if not path.is_file():
        what = "is not a file." if path.exists() else "does not exist."
        raise DataError(what, where=str(path), hint=f"Relative paths are taken from {Path.cwd()}.")
    try:
        content = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("is not an npz file, or is damaged.", where=str(path), hint=_FORM) from error
    if not isinstance(content, NpzFile):
        raise DataError("holds a single array; it is an npy file.", where=str(path), hint=_FORM)
    return content


def _parse(key: str, path: Path) -> tuple[str, str, str]:
    """Side (`x` or `y`), split and input name of a key; the name is empty for the only input."""
    base, dot, name = key.partition(".")
    side, _, part = base.partition("_")
    if base not in _KEYS or part not in PARTS or (dot and (side == "y" or not name)):
        raise DataError(f"has an unknown key {key!r}.", where=str(path), hint=nearest(key, _KEYS))
    return side, part, name


def _part(archive: NpzFile, names: dict[str, tuple[str, str, str]], part: str, path: Path) -> ArraySource | None:
    inputs = {name: key for key, (side, of, name) in names.items() if (side, of) == ("x", part)}
    labels = f"y_{part}"
    if not inputs and labels not in names:
        return None
    if not inputs or labels not in names:
        there, absent = (labels, f"x_{part}") if not inputs else (f"x_{part}", labels)
        raise DataError(f"has {there} and no {absent}.", where=str(path), hint="Give both or none.")
    if "" in inputs and len(inputs) > 1:
        other = next(key for name, key in inputs.items() if name)
        raise DataError(
            f"has both x_{part} and {other}.", where=str(path), hint="Name every input, or give a single one."
        )
    targets = _labels(_read(archive, labels, path), f"{path}: {labels}")
    arrays = {name: _input(_read(archive, key, path), f"{path}: {key}") for name, key in inputs.items()}
    for name, key in inputs.items():
        if len(arrays[name]) != len(targets):
            raise DataError(
                f"{key} holds {len(arrays[name])} items and {labels} {len(targets)}.",
                where=str(path),
                hint="Each item needs one label.",
            )
    return ArraySource((arrays[""],) if "" in arrays else arrays, targets)


def _read(archive: NpzFile, key: str, path: Path) -> Array:
    where = f"{path}: {key}"
    try:
        array: Array = archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise DataError("is damaged.", where=where, hint="Save the file again.") from error
        raise DataError(
            "holds Python objects, which are not unpickled, as that could run code.",
            where=where,
            hint="Save an array of numbers, all items of one shape.",
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError("is damaged.", where=where, hint="Save the file again.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = array.dtype if isinstance(array, np.ndarray) else "no array"
        raise DataError(f"holds {kind}, not numbers.", where=where, hint="Save an array of numbers.")
    if array.size == 0:
        raise DataError(f"is empty, its shape is {array.shape}.", where=where, hint="Give at least one item.")
    return array


def _labels(array: Array, where: str) -> Array:
    hint = "For other targets write a file.py:callable that returns a Task with its own score."
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        one_hot = array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()
        hint = "One-hot labels become class numbers by y.argmax(1)." if one_hot else hint
        raise DataError(f"labels have shape {array.shape}, not (n,).", where=where, hint=hint)
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(array) | (array != np.rint(array)))
        if len(wrong):
            value, item = array[wrong[0]], wrong[0]
            raise DataError(f"labels are not whole numbers (item {item} is {value:g}).", where=where, hint=hint)
    whole = array.astype(np.int64)
    if whole.min() < 0:
        item = int(whole.argmin())
        raise DataError(
            f"labels are negative (item {item} is {whole[item]}).",
            where=where,
            hint="Number the classes from 0.",
        )
    return whole


def _input(array: Array, where: str) -> Array:
    if array.ndim == 0:
        raise DataError("is a single number.", where=where, hint="Give an array with one row an item.")
    if array.dtype.kind == "f":
        # in chunks: a mask of the whole array might need more memory than anything else
        for start in range(0, len(array), _CHUNK_ITEMS):
            finite = np.isfinite(array[start : start + _CHUNK_ITEMS])
            if not finite.all():
                item = start + int(np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))[0])
                raise DataError(
                    f"holds values that are not finite (NaN or infinity), first in item {item}.",
                    where=where,
                    hint="Remove or replace them.",
                )
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        return array
    if array.ndim == 3:
        return array[:, None]
    if array.shape[3] in CHANNELS:
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    if array.shape[1] in CHANNELS:
        return array
    raise DataError(
        f"has shape {array.shape}; uint8 arrays of 4 dimensions are images, (n, h, w, c) or (n, c, h, w), "
        "with 1, 3 or 4 channels.",
        where=where,
        hint="Save what is no image as float32 or int64.",
    )


def _normalize(archive: NpzFile, arrays: list[Array], path: Path) -> Normalize | None:
    given = [key for key in ("mean", "std") if key in archive.files]
    images = [array for array in arrays if is_image(array)]
    if given and not images:
        raise DataError(
            f"has {' and '.join(given)}, which apply to uint8 images, and holds none.",
            where=str(path),
            hint="Normalise the arrays before saving, or save uint8 images.",
        )
    if not images:
        return None
    values = {key: _statistic(archive, key, [image.shape[1] for image in images], path) for key in given}
    return Normalize(**values)


def _statistic(archive: NpzFile, key: str, channels: list[int], path: Path) -> tuple[float, ...]:
    array = np.atleast_1d(_read(archive, key, path).astype(np.float64))
    where = f"{path}: {key}"
    if array.ndim != 1 or any(len(array) not in (1, count) for count in channels):
        raise DataError(
            f"has shape {array.shape}, the images have {channels[0]} channels.",
            where=where,
            hint="Give one number, or one a channel.",
        )
    usable = np.isfinite(array).all() and (array > 0 if key == "std" else array >= 0).all()
    if not usable or array.max() > 1:
        raise DataError(
            f"is {', '.join(f'{value:g}' for value in array)}, not between 0 and 1.",
            where=where,
            hint="Give it for values from 0 to 1, not 0 to 255.",
        )
    return tuple(float(value) for value in array)


def _check_same_inputs(sources: dict[str, ArraySource | None], path: Path) -> None:
    test = sources["test"]
    for part, source in sources.items():
        if source is None or test is None:
            continue
        here, there = dict(_named(source.inputs)), dict(_named(test.inputs))
        if set(here) != set(there):
            lists = [", ".join(sorted(names)) or "one" for names in (here, there)]
            raise DataError(
                f"x_{part} has the inputs {lists[0]}, x_test {lists[1]}.",
                where=str(path),
                hint="Give every part the same inputs.",
            )
        for name, array in here.items():
            like = there[name]
            if array.dtype != like.dtype or array.ndim != like.ndim:
                raise DataError(
                    f"x_{part} holds {array.dtype} {array.shape}, x_test {like.dtype} {like.shape}.",
                    where=f"{path}{f': {name}' if name else ''}",
                    hint="Give every part the same kind of array.",
                )


def _named(inputs: Inputs) -> Iterator[tuple[str, Array]]:
    yield from inputs.items() if isinstance(inputs, dict) else (("", array) for array in inputs)
