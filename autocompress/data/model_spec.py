"""Models from a spec: `file.py:callable`, `package.module:callable`, or `torchvision:resnet18`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.core.user_code import kind_of
from autocompress.data.model_libraries import LIBRARIES
from autocompress.data.module import first_line
from autocompress.data.spec_import import Maker, split_spec
from autocompress.errors import ModelError

FORMS = "file.py:callable, package.module:callable, torchvision:NAME, timm:NAME, hf:DIR or FILE.onnx"
# what DataParallel and torch.compile put before the names of all weights
PREFIXES = ("module.", "_orig_mod.")
# how files of weights are usually named
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
_SAVING = "Save one with torch.save(model.state_dict(), FILE)."
_makes_modules = Maker(nn.Module, "an nn.Module", ModelError)


def load_model(spec: str, weights: Path | None = None) -> nn.Module | Path:
    """The module that a spec names, on the CPU, or the path of an ONNX file.

    Args:
        spec: `file.py:callable` or `package.module:callable`, where the callable is a function or an
            `nn.Module` class that is called without arguments; or a model of a library, `torchvision:NAME`,
            `timm:NAME` or `hf:DIR` (see `autocompress.data.model_libraries`); or `FILE.onnx`.
        weights: a state dict saved with `torch.save`, alone or under the key `state_dict`; the prefixes
            `module.` and `_orig_mod.` that DataParallel and torch.compile leave are dropped. Nothing else is
            unpickled from it.

    Raises:
        ModelError: when the module cannot be found, imported or built, or the weights do not fit it.
        MissingExtraError: when the library is needed and not installed.
    """
    if spec.lower().endswith(".onnx"):
        if weights is not None:
            raise ModelError("holds its own weights.", where=spec, hint="Leave out --weights.")
        return Path(spec).expanduser()
    module = _made(spec)
    if weights is not None:
        _fill(module, read_weights(weights), weights)
    return module


def _made(spec: str) -> nn.Module:
    library, _, name = spec.partition(":")
    if name and library in LIBRARIES:
        return LIBRARIES[library](name)
    parts = split_spec(spec)
    if parts is None:
        raise ModelError("names no callable.", where=repr(spec), hint=_form_of(spec))
    return _makes_modules.make(*parts)


def _form_of(spec: str) -> str:
    """What to write in place of a spec that names no callable."""
    path = Path(spec)
    if path.suffix == ".py":
        return f"Write {spec}:NAME, with the function in it that returns the model."
    if path.suffix in CHECKPOINTS:
        return f"Weights alone are no model: write --model file.py:callable --weights {spec}."
    return f"Write {FORMS}."


def read_weights(path: Path) -> dict[str, Any]:
    """The state dict in a file, on the CPU.

    The wrapper dict and the name prefix that training left around it are removed.

    Raises:
        ModelError: when the file is missing or holds anything else than tensors by name.
    """
    if not path.is_file():
        what = "is not a file." if path.exists() else "does not exist."
        raise ModelError(what, where=str(path), hint=f"Give a state dict. {_SAVING}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about files that are refused below
            content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        held = re.search(r"GLOBAL (\S+)", str(error))
        if held:
            what = f"holds a Python object ({held[1]}), which is not unpickled, as that could run code."
        else:
            what = "is not a checkpoint of PyTorch, or is damaged."
        raise ModelError(what, where=str(path), hint=_SAVING) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not any(isinstance(v, torch.Tensor) for v in content.values()):
        entries = content if isinstance(content, Mapping) else {}
        keys = f" with the keys {', '.join(map(str, list(entries)[:5]))}" if entries else ""
        inner = next((key for key, value in entries.items() if _is_state(value)), None)
        raise ModelError(
            f"holds {kind_of(content)}{keys}, not a state dict.",
            where=str(path),
            hint=_SAVING if inner is None else f"Save what its key {inner!r} holds, alone or under the key state_dict.",
        )
    state = {str(key): value for key, value in content.items()}
    return _without(PREFIXES, state)


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(part, torch.Tensor) for part in value.values())


def _without(prefixes: Sequence[str], state: dict[str, Any]) -> dict[str, Any]:
    """The state dict without prefixes that all its keys have, in whatever order; each goes once."""
    for prefix in prefixes:
        if all(key.startswith(prefix) for key in state):
            rest = [one for one in prefixes if one != prefix]
            return _without(rest, {key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _fill(module: nn.Module, state: dict[str, Any], path: Path) -> None:
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        differences = [
            f"{_count(keys, 'key')} {what}, the first is {keys[0]!r}"
            for keys, what in ((missing, "of the model missing"), (unexpected, "the model does not have"))
            if keys
        ]
        raise ModelError(
            f"does not fit the model: {'; '.join(differences)}.",
            where=str(path),
            hint="Give the weights of this architecture.",
        )
    for key, value in own.items():
        given = state[key]
        if not isinstance(value, torch.Tensor) or nn.parameter.is_lazy(value):
            continue
        if getattr(given, "shape", None) != value.shape:
            shape = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
            raise ModelError(
                f"does not fit the model: {key!r} is {shape}, the model's is {tuple(value.shape)}.",
                where=str(path),
                hint="Give the weights of this architecture, or build the model with their sizes.",
            )
    try:
        module.load_state_dict(state, strict=True)
    except Exception as error:
        raise ModelError(f"does not fit the model: {first_line(error)}", where=str(path)) from error


def _count(keys: list[str], noun: str) -> str:
    return f"{len(keys)} {noun}{'' if len(keys) == 1 else 's'}"
