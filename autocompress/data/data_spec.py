"""Data from a spec: `digits`, `cifar10`, `mnist`, `fashion-mnist`, `PATH.npz` or `file.py:callable`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.core.source import Array, ArraySource
from autocompress.core.task import Task
from autocompress.data.normalize import Normalize
from autocompress.data.npz_file import read_npz
from autocompress.data.spec_import import Maker, split_spec
from autocompress.errors import DataError, MissingExtraError, nearest

FORMS = "digits, cifar10, mnist, fashion-mnist, PATH.npz or file.py:callable"
DEFAULT_DATA_DIR = Path("data")
_makes_tasks = Maker(Task, "a Task", DataError)


@dataclass(frozen=True)
class _Published:
    """A dataset of torchvision.

    Args:
        kind: the name of its class there.
        folder: what torchvision keeps under the data directory.
        normalize: mean and std of its training images per channel, as they are commonly published.
    """

    kind: str
    folder: str
    normalize: Normalize


PUBLISHED: Mapping[str, _Published] = {
    "cifar10": _Published(
        "CIFAR10", "cifar-10-batches-py", Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    ),
    "mnist": _Published("MNIST", "MNIST/raw", Normalize((0.1307,), (0.3081,))),
    "fashion-mnist": _Published("FashionMNIST", "FashionMNIST/raw", Normalize((0.2860,), (0.3530,))),
}


def load_data(spec: str, *, data_dir: Path | None = None, augment: str = "none", download: bool = False) -> Task:
    """The task that a spec names.

    Args:
        spec: `digits`: scikit-learn's 1,797 images, float32 `(n, 1, 8, 8)` between 0 and 1, about 1,000 of
            them to train on. `cifar10`, `mnist`, `fashion-mnist`: torchvision's train and test split, kept as
            uint8 and given out as float32 `(n, c, h, w)`, normalised with the mean and std of `PUBLISHED`.
            `PATH.npz`: see `read_npz`. `file.py:callable` or `package.module:callable`: a function that
            returns a `Task`.
        data_dir: folder of torchvision's datasets, `data` by default.
        augment: `none`, `flip` or `crop-flip`, for the batches of images that are trained on; it replaces
            what the task of a callable brings, `none` leaves that.
        download: let torchvision download a dataset that is not in `data_dir`.

    Raises:
        DataError: when the data cannot be found, read or used.
        MissingExtraError: when scikit-learn or torchvision is needed and not installed.
    """
    from autocompress.data.augmentation import AUGMENTATIONS

    if augment not in AUGMENTATIONS:
        raise DataError(f"there is no {augment!r}.", where="augment", hint=nearest(augment, AUGMENTATIONS))
    task = _load(spec, data_dir or DEFAULT_DATA_DIR, download=download)
    if augment == "none":
        return task
    _require_images(task, augment)
    return dataclasses.replace(task, augment=AUGMENTATIONS[augment])


def runs_code(spec: str) -> bool:
    """True when loading the spec would run Python code that the package does not contain."""
    return not (spec == "digits" or spec in PUBLISHED or spec.lower().endswith(".npz"))


def _load(spec: str, data_dir: Path, *, download: bool) -> Task:
    if spec == "digits":
        return _digits()
    if spec in PUBLISHED:
        return _published(spec, data_dir.expanduser(), download=download)
    if spec.lower().endswith(".npz"):
        return read_npz(Path(spec).expanduser())
    parts = split_spec(spec)
    if parts is None:
        near = nearest(spec, ("digits", *PUBLISHED))
        hint = f"Give {FORMS}." if near.startswith("Known") else near
        raise DataError("names no data.", where=repr(spec), hint=hint)
    return _makes_tasks.make(*parts)


def _digits() -> Task:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "needs scikit-learn, which is not installed.",
            where="digits",
            hint='Install it with: pip install "autocompress[data]"',
        ) from error
    images, labels = load_digits(return_X_y=True)
    # values from 0 to 16 in the file
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = labels.astype(np.int64)
    trains = np.array([_trains(i) for i in range(len(labels))], dtype=bool)
    return Task(
        train=ArraySource((images[trains],), labels[trains]),
        test=ArraySource((images[~trains],), labels[~trains]),
        name="digits",
    )


def _trains(index: int) -> bool:
    """True when an image of digits belongs to the training split.

    Those are five of nine by the hash of the index, about 1,000.
    """
    digest = hashlib.sha256(f"digits {index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % 9 < 5


def _published(name: str, data_dir: Path, *, download: bool) -> Task:
    from autocompress.data.vision import import_torchvision

    import_torchvision()
    from torchvision import datasets

    known = PUBLISHED[name]
    folder = data_dir / known.folder
    if not download and not folder.is_dir():
        raise DataError(
            f"{name} was not found (there is no {known.folder} in it).",
            where=str(data_dir),
            hint="Add --download, or name its folder with --data-dir.",
        )
    dataset = getattr(datasets, known.kind)
    sources = {}
    for part in ("train", "test"):
        try:
            loaded = dataset(data_dir, train=part == "train", download=download)
            # the arrays are read and not the items, each of which the dataset would turn into a PIL image
            images, labels = _as_nchw(np.asarray(loaded.data)), np.asarray(loaded.targets, dtype=np.int64)
            sources[part] = ArraySource((images,), labels, known.normalize)
        except Exception as error:
            raise _unreadable(name, folder, error, download=download) from error
    return Task(train=sources["train"], test=sources["test"], name=name)


def _as_nchw(images: Array) -> Array:
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _unreadable(name: str, folder: Path, error: Exception, *, download: bool) -> DataError:
    reason = str(error).strip().splitlines()
    detail = f"{type(error).__name__}: {reason[0].rstrip('.')}" if reason else type(error).__name__
    if download and isinstance(error, OSError | RuntimeError):
        hint = f"Check the network, or copy the files to {folder} from elsewhere."
        return DataError(f"{name} could not be downloaded ({detail}).", where=str(folder), hint=hint)
    return DataError(
        f"{name} is incomplete or damaged ({detail}).",
        where=str(folder),
        hint="Remove this folder and add --download.",
    )


def _require_images(task: Task, augment: str) -> None:
    source = task.train if task.train is not None else task.test
    inputs: Any = source.read([0])[0] if source is not None else ()
    arrays = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
    if isinstance(inputs, dict) or len(arrays) != 1 or arrays[0].ndim != 4 or arrays[0].dtype.kind != "f":
        held = ", ".join(f"{array.dtype} {('n', *array.shape[1:])}" for array in arrays) or "nothing"
        raise DataError(
            f"{augment!r} is for batches of images (n, c, h, w); {task.name} holds {held}.".replace("'n'", "n"),
            where="augment",
            hint="Leave it out.",
        )
