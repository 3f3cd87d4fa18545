"""What commands are given: the model, the data, the shapes of inputs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from autocompress.core.artifact import TensorSpec
    from autocompress.core.task import Task


def load_given(
    model: str, weights: Path | None, data: str | None, data_dir: Path | None, augment: str, *, download: bool
) -> tuple[torch.nn.Module | Path, Task | None]:
    """The model and the data that texts on the command line name."""
    from autocompress.data.data_spec import load_data
    from autocompress.data.model_spec import load_model

    task = load_data(data, data_dir=data_dir, augment=augment, download=download) if data else None
    return load_model(model, weights), task


def specs_of(texts: list[str] | None, model: torch.nn.Module | Path) -> Any:
    """Specs of example inputs; a dtype that is not given is the file's, and float32 for a module."""
    if isinstance(model, Path):
        return shapes_of(texts) or None
    from autocompress.core.artifact import TensorSpec, input_name

    return tuple(TensorSpec.parse(text, input_name(place)) for place, text in enumerate(texts or ())) or None


def shapes_of(texts: list[str] | None) -> tuple[TensorSpec, ...]:
    """The shapes that a file is timed at; a dtype that is not given is the file's."""
    from autocompress.core.artifact import TensorSpec, input_name

    return tuple(TensorSpec.parse(text, input_name(place), default_dtype="") for place, text in enumerate(texts or ()))


@contextlib.contextmanager
def only_json(as_json: bool) -> Iterator[None]:
    """Keep what a user's code prints off standard output, which another program reads as JSON."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield
