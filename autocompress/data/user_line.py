"""The line of a user's own code that an error comes from."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from autocompress.core.code_hash import OURS
from autocompress.core.user_code import OF_PACKAGES, SHOWN, is_the_users, line_at

# a line of a stack in the form in which Python prints it, as torch.fx keeps one with every node
PRINTED = re.compile(r'File "([^"]+)", line (\d+)')
# packages that run the user's code; other installed ones, such as transformers, hold models
MACHINERY = ("torch", "onnx", "onnxscript", "onnx_ir", "torch_pruning", "numpy")


def user_line(error: BaseException) -> str:
    """File, line and code of the innermost frame of user's code in an error, `nets.py, line 12 (x = ...)`.

    Frames of the error's causes count, and those in which the operators of a traced graph were called. Where all
    code is installed, the innermost frame of the package that holds the model is named. Empty where there is none.
    """
    places = [place for cause in causes_of(error) for place in _places(cause)]
    for kind in (is_the_users, _is_model):
        found = [place for place in places if kind(place[0])]
        if found:
            line = line_at(*found[-1])
            return f"{line.place} ({line.text[:SHOWN]})" if line.text else line.place
    return ""


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, the first cause last."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _places(error: BaseException) -> Iterator[tuple[str, int]]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_filename, line
        node = frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node):
            for file, number in PRINTED.findall(node.stack_trace or ""):
                yield file, int(number)


def _is_model(file: str) -> bool:
    """True for a file of an installed package that may hold models."""
    parts = Path(file).parts
    folder = next((folder for folder in OF_PACKAGES if folder in parts), None)
    return folder is not None and parts[parts.index(folder) + 1] not in (*MACHINERY, OURS)
