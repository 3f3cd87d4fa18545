"""The line of a user's own code that an error comes from."""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

# a line of a stack in the form in which Python prints it, as torch.fx keeps one with every node
PRINTED = re.compile(r'File "([^"]+)", line (\d+)')
PACKAGE = str(Path(__file__).resolve().parents[1])
STANDARD_LIBRARY = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
INSTALLED = ("site-packages", "dist-packages")
# packages that run the user's code; other installed ones, such as transformers, hold models
MACHINERY = ("torch", "onnx", "onnxscript", "onnx_ir", "torch_pruning", "numpy")


def user_line(error: BaseException) -> str:
    """File, line and code of the innermost frame of user's code in an error, `nets.py, line 12 (x = ...)`.

    Frames of the error's causes count, and those in which the operators of a traced graph were called. Where all
    code is installed, the innermost frame of the package that holds the model is named. Empty where there is none.
    """
    places = [place for cause in causes_of(error) for place in _places(cause)]
    for kind in (_is_own, _is_model):
        found = [place for place in places if kind(place[0])]
        if found:
            file, line = found[-1]
            code = linecache.getline(file, line).strip()
            return f"{_short(file)}, line {line}" + (f" ({code[:100]})" if code else "")
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
    """True for the user's files and for installed packages that may hold models."""
    if file.startswith("<") or file.startswith(PACKAGE):
        return False
    parts = Path(file).parts
    for folder in INSTALLED:
        if folder in parts:
            return parts[parts.index(folder) + 1] not in MACHINERY
    return not file.startswith(STANDARD_LIBRARY)


def _is_own(file: str) -> bool:
    return _is_model(file) and not set(INSTALLED) & set(Path(file).parts)


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
