"""Import and call what a spec such as `file.py:callable` or `package.module:callable` names."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, NoReturn, TypeVar

from autocompress.core.user_code import kind_of, line_of
from autocompress.data.module import first_line
from autocompress.data.vision import prepare_torchvision
from autocompress.errors import AutocompressError, nearest

T = TypeVar("T")


def split_spec(spec: str) -> tuple[str, str] | None:
    """The file or module and the name in `file.py:callable`, None when the text is not of this form."""
    # split from the right: a path on Windows has a colon of its own
    target, colon, name = spec.rpartition(":")
    return (target, name) if colon and target and name.isidentifier() else None


@dataclass(frozen=True)
class Maker(Generic[T]):
    """Makes the objects that specs name.

    Args:
        wanted: the class that the named callable has to return an instance of.
        noun: the name of that class in messages, with its article.
        error: the class of the errors raised.
    """

    wanted: type[T]
    noun: str
    error: type[AutocompressError]

    def make(self, target: str, name: str) -> T:
        """The object `name` in the file or module `target`, or what it returns when called without arguments.

        The file's folder, or the current directory for a module, is importable meanwhile and afterwards.
        Errors of this package that the user's code raises pass unchanged.

        Raises:
            AutocompressError: of the class `error`, when the target cannot be found or imported, has no such
                callable, or when that raises or returns something else.
        """
        found = self.find(target, name)
        return found if isinstance(found, self.wanted) else self._call(found, target, name)

    def find(self, target: str, name: str) -> Any:
        """The object `name` in the file or module `target`: an instance of the class wanted, or a callable.

        Raises:
            AutocompressError: as `make`.
        """
        prepare_torchvision()
        is_file = target.endswith(".py")
        module = self._import_file(Path(target).expanduser()) if is_file else self._import_module(target)
        return self._find(module, target, name)

    def _import_file(self, path: Path) -> ModuleType:
        if not path.exists():
            raise self.error("does not exist.", where=str(path), hint=f"Relative paths are taken from {Path.cwd()}.")
        try:
            source = path.read_bytes()
        except OSError as problem:
            raise self.error(
                f"cannot be read ({problem.strerror or problem}).",
                where=str(path),
                hint="Give a Python file.",
            ) from problem
        path = path.resolve()
        # by content: a file named twice (for model and data) runs once, an edited one runs again
        digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:16]
        key = f"autocompress_spec_{digest}"
        if key in sys.modules:
            return sys.modules[key]
        spec = importlib.util.spec_from_file_location(key, path)
        if spec is None:
            raise self.error("is not a Python file.", where=str(path), hint="Give a file that ends in .py.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        try:
            with _importable(path.parent), _arguments_of(path):
                # compiled here: Python's cache of bytecode misses an edit of equal length in the same second
                exec(compile(source, str(path), "exec"), module.__dict__)
        except BaseException as problem:  # noqa: BLE001 - _stop raises, and lets an interrupt pass
            del sys.modules[key]
            self._stop(problem, str(path), "its import raised")
        return module

    def _import_module(self, target: str) -> ModuleType:
        importlib.invalidate_caches()
        try:
            with _importable(Path.cwd()):
                return importlib.import_module(target)
        except ModuleNotFoundError as problem:
            if problem.name is not None and f"{target}.".startswith(f"{problem.name}."):
                raise self.error(
                    f"there is no module {problem.name!r}.",
                    where=target,
                    hint=f"Run where it can be imported (this is {Path.cwd()}), or write file.py:callable.",
                ) from problem
            self._stop(problem, target, "its import raised")
        except BaseException as problem:  # noqa: BLE001 - _stop raises, and lets an interrupt pass
            self._stop(problem, target, "its import raised")

    def _find(self, module: ModuleType, target: str, name: str) -> Any:
        try:
            found = getattr(module, name)
        except AttributeError:
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            # with no similar name, list what the module defines itself and not what it imports
            own = [key for key in known if getattr(vars(module)[key], "__module__", None) == module.__name__]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = nearest(name, near or own) if near or own else "It defines none."
            raise self.error(f"has no callable {name!r}.", where=target, hint=hint) from None
        if not callable(found) and not isinstance(found, self.wanted):
            raise self.error(
                f"{name!r} is a {type(found).__name__}, not a callable.",
                where=target,
                hint=f"Name a function that returns {self.noun}.",
            )
        return found

    def _call(self, function: Any, target: str, name: str) -> T:
        try:
            inspect.signature(function).bind()
        except TypeError as problem:
            raise self.error(
                f"{name}() cannot be called without arguments ({problem}).",
                where=target,
                hint=f"Name a function without arguments that returns {self.noun}.",
            ) from problem
        except ValueError:
            pass  # a builtin has no signature to look at
        try:
            made = function()
        except BaseException as problem:  # noqa: BLE001 - _stop raises, and lets an interrupt pass
            self._stop(problem, target, f"{name}() raised")
        if not isinstance(made, self.wanted):
            state = isinstance(made, dict) and made and all(hasattr(value, "detach") for value in made.values())
            raise self.error(
                f"{name}() returned {'a state dict' if state else kind_of(made)}, not {self.noun}.",
                where=target,
                hint="Build the module, fill it with load_state_dict(), and return it."
                if state
                else f"Return {self.noun} from it.",
            )
        return made

    def _stop(self, problem: BaseException, target: str, what: str) -> NoReturn:
        # SystemExit: a script without a main guard, which would end this program too
        if isinstance(problem, AutocompressError) or not isinstance(problem, Exception | SystemExit):
            raise problem
        text = first_line(problem)
        kind = type(problem).__name__
        line = line_of(problem)
        hint = "Correct it there; --debug shows the traceback."
        if isinstance(problem, SystemExit):
            hint = "What a script does goes below: if __name__ == '__main__'."
        raise self.error(
            f"{what} {kind}." if text == kind else f"{what} {kind}: {text.rstrip('.')}.",
            where=_short(target) if line is None else line.place,
            hint=hint,
        ) from problem


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put the folder first in the import path, as Python does for a script, and at its end afterwards.

    At the end, imports that the user's functions make later still work, and no file there (`random.py`) hides
    a library that is imported later.
    """
    place = str(folder)
    if place in sys.path:
        yield
        return
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)
        sys.path.append(place)


@contextmanager
def _arguments_of(path: Path) -> Iterator[None]:
    """A script's own arguments, which are none: those of this program are not meant for it."""
    before = sys.argv
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = before


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
