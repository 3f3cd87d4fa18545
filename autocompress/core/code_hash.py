"""Hashes of callables: a changed score, loss or augmentation makes another run."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN = (type(None), bool, int, float, complex, str, bytes, range)
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
PACKAGES = tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib"))
OURS = __name__.partition(".")[0]
# what Python itself puts into the table of a class
BY_PYTHON = {
    "__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__doc__",
    "__firstlineno__", "__match_args__", "__module__", "__qualname__", "__slots__", "__static_attributes__",
    "__weakref__", "_abc_impl",
}  # fmt: skip
ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def code_hash(target: Any) -> str:
    """A hash of what a callable does, equal in every process: 16 hexadecimal digits.

    It covers the byte code of a function, its defaults, the values it is closed over, the values of its module that it
    uses, and the functions and classes of the user that it calls, each in the same way. An object is its class and its
    attributes; arrays, tensors and modules count by their values. What a library defines counts by its name alone,
    since the versions of libraries are compared elsewhere.
    """
    walk = _Walk()
    walk.add(target)
    return str(walk.digest.hexdigest())[:16]


@dataclass(eq=False)
class _Walk:
    """Feeds a value, and all it refers to, into a digest; each object once."""

    digest: Any = field(default_factory=hashlib.sha256)
    # objects stay referenced until the end, so that no other one gets their id
    _seen: dict[int, tuple[int, Any]] = field(default_factory=dict)

    def add(self, value: Any) -> None:
        """Add a value."""
        if isinstance(value, PLAIN):
            self._text(f"{type(value).__name__} {value!r}")
            return
        # equal constants may or may not be one object
        if not isinstance(value, (tuple, CodeType)):
            if id(value) in self._seen:
                self._text(f"seen {self._seen[id(value)][0]}")
                return
            self._seen[id(value)] = (len(self._seen), value)
        self._text(type(value).__qualname__)
        for part in _parts(value):
            self.add(part)

    def _text(self, text: str) -> None:
        self.digest.update(text.encode() + b"\0")


def _parts(value: Any) -> Iterator[Any]:
    """What makes up a value that is not plain."""
    if isinstance(value, CodeType):
        yield from (value.co_code, value.co_names, value.co_varnames[: value.co_argcount], value.co_consts)
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, (set, frozenset)):
        yield from sorted(code_hash(item) for item in value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (key, item)
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, type):
        yield from _of_class(value)
    elif isinstance(value, (MethodType, functools.partial, property)):
        names = ("__func__", "__self__", "func", "args", "keywords", "fget")
        yield from (getattr(value, name) for name in names if hasattr(value, name))
    elif hasattr(value, "__wrapped__"):
        # static methods, class methods and what functools wraps
        yield value.__wrapped__
    elif isinstance(value, (ModuleType, BuiltinFunctionType)):
        yield getattr(value, "__qualname__", value.__name__)
    else:
        yield from _of_object(value)


def _of_function(function: FunctionType) -> Iterator[Any]:
    yield function.__qualname__
    if _origin(function) is not Origin.USER:
        yield function.__module__
        return
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            # a name that is bound only later
            yield "empty"
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield from (name, function.__globals__[name])


def _names(code: CodeType) -> set[str]:
    """Names that the code looks up, those of functions defined inside it included."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _of_class(kind: type) -> Iterator[Any]:
    yield kind.__qualname__
    if _origin(kind) is not Origin.USER:
        yield kind.__module__
    else:
        # the code counts, not the name of the module, which holds a hash of the file's whole text
        yield from ((name, part) for name, part in sorted(vars(kind).items()) if name not in BY_PYTHON)
        yield from kind.__bases__


def _of_object(value: Any) -> Iterator[Any]:
    kind = type(value)
    yield kind
    if hasattr(value, "detach"):
        yield from _of_array(value.detach().cpu().float().numpy())
    elif isinstance(value, (np.ndarray, np.generic)):
        yield from _of_array(np.asarray(value))
    elif _origin(kind) is Origin.STANDARD:
        # such as paths and patterns; those without a text of their own have an address in it
        yield ADDRESS.sub("", repr(value))
    else:
        yield from sorted(getattr(value, "__dict__", {}).items())
        slots = sorted({name for one in kind.__mro__ for name in _slots(one)} - BY_PYTHON)
        yield from ((name, getattr(value, name, None)) for name in slots)


def _of_array(array: NDArray[Any]) -> Iterator[Any]:
    yield from (str(array.dtype), array.shape)
    yield array.tolist() if array.dtype == object else array.tobytes()


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


class Origin(Enum):
    """Where a definition comes from."""

    USER = "user"
    STANDARD = "standard library"
    PACKAGE = "installed package"


def _origin(definition: Any) -> Origin:
    name = definition.__module__ or "builtins"
    if name.partition(".")[0] == OURS:
        return Origin.PACKAGE
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        # compiled into the interpreter, or typed in by the user
        return Origin.USER if name == "__main__" or name not in sys.modules else Origin.STANDARD
    above = Path(file).resolve().parents
    if any(folder in above for folder in PACKAGES):
        return Origin.PACKAGE
    return Origin.STANDARD if STANDARD in above else Origin.USER
