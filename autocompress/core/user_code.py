"""The user's own line in an error: the deepest one of a traceback, or where a function is defined."""

from __future__ import annotations

import functools
import inspect
import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.core.code_hash import PACKAGES, STANDARD
from autocompress.errors import AutocompressError, DataError, sentence_of

# folders whose files are not the user's: this package, the standard library, installed packages
NOT_THE_USERS = (Path(__file__).resolve().parents[1], STANDARD, *PACKAGES)
# how folders of packages are called elsewhere, as those of the user or of a Linux distribution
OF_PACKAGES = {"site-packages", "dist-packages"}
# what Python and IPython call the lines that were typed in
TYPED_IN = ("<ipython-input", "<python-input", "<stdin")
# characters of a source line that a message shows
SHOWN = 100


@dataclass(frozen=True)
class Line:
    """One line of the user's code: file, number from 1, and text, empty where it cannot be read."""

    file: str
    number: int
    text: str

    @property
    def place(self) -> str:
        """File and number; the file relative to the current directory where it is inside it."""
        path = Path(self.file)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else self.file
        return f"{shown}, line {self.number}"

    def __str__(self) -> str:
        text = self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]} ..."
        return f"{self.place}: {text}" if text else self.place


def line_of(error: BaseException) -> Line | None:
    """The deepest line of an error's traceback that is the user's; of a syntax error the line that has it."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return line_at(error.filename, error.lineno)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.lineno and is_the_users(frame.filename):
            return line_at(frame.filename, frame.lineno)
    return None


def definition_of(function: Any) -> Line | None:
    """The line where a function, or the class of a callable object, is defined, if the user wrote it."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    # an object is called through its class, a torch module through its forward()
    methods = [getattr(type(function), name, None) for name in ("__call__", "forward")]
    codes = [code for one in (function, *methods) if (code := getattr(one, "__code__", None)) is not None]
    for code in codes:
        if is_the_users(code.co_filename):
            return line_at(code.co_filename, _header(code.co_filename, code.co_firstlineno))
    return None


def with_line(sentence: str, line: Line | None) -> str:
    """A sentence about the user's code, with the line it is about in parentheses."""
    return f"{sentence.rstrip('.')}{'' if line is None else f' ({line})'}."


@contextmanager
def raised_by_user(where: str, what: str = "raised", function: Any = None, called: str = "") -> Iterator[None]:
    """Turn what the user's code raises in the block into a DataError that names the user's own line.

    Where none of the user's lines ran, as when `function` takes other arguments, its definition is named; where that is
    not the user's either, the advice is how it is `called`. Errors of this package pass as they are.

    Raises:
        DataError: when anything else is raised in the block.
    """
    try:
        yield
    except AutocompressError:
        raise
    except Exception as error:
        line = line_of(error) or (None if function is None else definition_of(function))
        hint = "Correct it there." if line else called
        raise DataError(with_line(f"{what} {sentence_of(error)}", line), where=where, hint=hint) from error


def kind_of(value: Any) -> str:
    """What a function returned, in words: "None", "a dict", "a tensor of shape (2, 3)"."""
    if value is None:
        return "None"
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape}"
    if hasattr(value, "detach") and hasattr(value, "shape"):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{'an' if type(value).__name__[0].lower() in 'aeiou' else 'a'} {type(value).__name__}"


def _header(file: str, number: int) -> int:
    """The number of a definition's own line, whose first line is that of its decorators."""
    while linecache.getline(file, number).strip().startswith("@"):
        number += 1
    return number


def line_at(file: str, number: int) -> Line:
    """The line of a file, with its text."""
    # the colon of a definition's header would end the sentence
    return Line(file, number, linecache.getline(file, number).strip().removesuffix(":"))


def is_the_users(file: str) -> bool:
    """True for a file of the user: not ours, the standard library's or an installed package's."""
    if file.startswith("<"):
        return file.startswith(TYPED_IN)
    path = Path(file).resolve()
    # notebooks name files that do not exist, but their lines are known
    known = path.is_file() or bool(linecache.getline(file, 1))
    return known and not OF_PACKAGES & set(path.parts) and not any(map(path.is_relative_to, NOT_THE_USERS))
