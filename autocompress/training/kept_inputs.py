"""Synthetic inputs as a run keeps them: made once, in a file that resumed runs and other workers read."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.source import Array, ArraySource, Inputs, Split, whole
from autocompress.system.locks import folder_lock
from autocompress.system.workspace import make_folder, write_atomically
from autocompress.training.synthetic_inputs import NAME, items_and_steps, synthetic_inputs


@dataclass(frozen=True)
class KeptInputs:
    """The folder of the inputs that were made for a model that is called as in `example`."""

    folder: Path
    example: Example

    def split(self, module: nn.Module, macs: int, tell: Callable[[str], None]) -> Split:
        """The kept inputs as a split to calibrate on; they are made where there are none, or a damaged file.

        Raises:
            TechniqueError: when none can be made.
        """
        make_folder(self.folder)
        path = self.folder / "inputs.npz"
        with folder_lock(self.folder):
            arrays = _read(path, tuple(self.example.arrays))
            if arrays is None:
                items, steps = items_and_steps(macs)
                tell(f"making {items} inputs from batch-norm statistics, in {steps} steps")
                arrays = synthetic_inputs(module, self.example, items, steps)
                write_atomically(path, partial(_write, arrays))
        count = len(next(iter(arrays.values())))
        inputs: Inputs = arrays if self.example.by_name else tuple(arrays.values())
        # nothing reads the targets of calibration items
        return whole(NAME, ArraySource(inputs, np.zeros(count, dtype=np.int64)))


def _write(arrays: Mapping[str, Array], target: Path) -> None:
    named: dict[str, Any] = dict(arrays)
    with target.open("wb") as file:
        np.savez(file, **named)


def _read(path: Path, names: tuple[str, ...]) -> dict[str, Array] | None:
    damaged = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
    with suppress(*damaged), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in names}
    return None
