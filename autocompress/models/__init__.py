"""Models that a run can compress: PyTorch modules, and ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autocompress.core.model import Model
from autocompress.errors import ModelError
from autocompress.models.file_model import FileModel
from autocompress.models.module_model import ModuleModel

__all__ = ["FileModel", "ModuleModel", "as_model"]

SUFFIX = ".onnx"


def as_model(given: Any) -> Model:
    """The model that was given: a module, or the path of an ONNX file.

    Raises:
        ModelError: when it is neither, or cannot be compressed.
        ArtifactError: when the file is missing or no whole ONNX model.
    """
    if isinstance(given, Path):
        return FileModel.read(given.expanduser())
    if isinstance(given, str):
        if not given.lower().endswith(SUFFIX):
            raise ModelError(
                f"is the text {given!r}, neither a torch.nn.Module nor the name of a .onnx file.",
                where="model",
                hint="Give the module itself, or the path of an ONNX file.",
            )
        return FileModel.read(Path(given).expanduser())
    return ModuleModel.of(given)
