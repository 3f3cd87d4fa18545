"""Import of torchvision that also works on a CPU build of torch.

The wheel of torchvision on the package index is built for CUDA. Its compiled operators do not load on a CPU
build of torch, and `import torchvision` then stops at "operator torchvision::nms does not exist", although
models, transforms and datasets need none of them. Declaring the two schemas is enough.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from typing import Any

import torch

from autocompress.errors import MissingExtraError

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# a Library takes its declarations back when it is collected
_kept: list[torch.library.Library] = []


def import_torchvision() -> Any:
    """The torchvision module, importable whichever build of torch is installed.

    Raises:
        MissingExtraError: when torchvision is not installed, or does not fit the installed torch.
    """
    prepare_torchvision()
    try:
        import torchvision
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise _unusable(error) from error
        raise MissingExtraError(
            "is not installed.", where="torchvision", hint='Install it with: pip install "autocompress[data]"'
        ) from error
    except Exception as error:
        raise _unusable(error) from error
    return torchvision


def prepare_torchvision() -> None:
    """Make a later `import torchvision` work in any code; does nothing where it is missing or works."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or _has("nms"):
        return
    _load_compiled(list(spec.submodule_search_locations))
    missing = [schema for name, schema in _SCHEMAS.items() if not _has(name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call] # torch's
        for schema in missing:
            library.define(schema)  # type: ignore[no-untyped-call] # torch's
        _kept.append(library)


def _has(name: str) -> bool:
    return hasattr(torch.ops.torchvision, name)


def _load_compiled(folders: list[str]) -> None:
    """Load torchvision's own operators where they fit.

    This comes first: once the schemas are declared, the operators could not be registered any more.
    """
    found = PathFinder.find_spec("_C", folders)
    if found is None or not found.origin or not found.origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return
    try:
        torch.ops.load_library(found.origin)  # type: ignore[no-untyped-call] # torch's
    except (OSError, ImportError):
        return  # built for another torch: the case this module is for


def _unusable(error: Exception) -> MissingExtraError:
    reason = str(error).strip().splitlines()
    return MissingExtraError(
        f"cannot be imported ({type(error).__name__}: {reason[0] if reason else 'no message'}).",
        where="torchvision",
        hint=f'Install the version that fits torch {torch.__version__}, with: pip install "autocompress[data]"',
    )
