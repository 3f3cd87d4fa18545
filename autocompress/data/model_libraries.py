"""Models of libraries: `torchvision:NAME`, `timm:NAME` and `hf:DIR`; nothing is downloaded.

Where no weights are given they are random, with seed 0, so that they are the same in every run.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.data.module import first_line
from autocompress.data.vision import import_torchvision, prepare_torchvision
from autocompress.errors import MissingExtraError, ModelError, nearest

SAFE, PICKLED = "*.safetensors", "*.bin"


def from_torchvision(name: str) -> nn.Module:
    """A classification, segmentation or detection model of torchvision.

    Raises:
        ModelError: when it has none of this name.
        MissingExtraError: when torchvision is not installed.
    """
    import_torchvision()
    from torchvision import models

    known = [one for part in (models, models.segmentation, models.detection) for one in models.list_models(module=part)]
    if name.lower() not in known:
        hint = nearest(name.lower(), known)
        raise ModelError(
            f"has no classification, segmentation or detection model {name!r}.", where="torchvision", hint=hint
        )
    # these would fetch weights for their backbone
    on_backbones = [one for part in (models.segmentation, models.detection) for one in models.list_models(module=part)]
    more = {"weights_backbone": None} if name.lower() in on_backbones else {}
    with _same_weights():
        module: nn.Module = models.get_model(name.lower(), weights=None, **more)
    return module


def from_timm(name: str) -> nn.Module:
    """A model of timm, without pretrained weights.

    Raises:
        ModelError: when timm has none of this name, or cannot build it.
        MissingExtraError: when timm is not installed.
    """
    prepare_torchvision()
    timm = _library("timm", "timm")
    if not timm.is_model(name):
        # a tag behind a dot names pretrained weights, which are not downloaded
        raise ModelError(f"has no model {name!r}.", where="timm", hint=nearest(name, timm.list_models()))
    with _same_weights(), _named_errors("timm", name):
        module: nn.Module = timm.create_model(name, pretrained=False)
    return module


def from_hugging_face(folder: Path) -> nn.Module:
    """The model in a local folder with `config.json`, with the weights in its safetensors files.

    Its class, head included, is the first of the configuration's `architectures`. Without any file of weights they are
    random. Pickled weights are not loaded, and code that a folder brings is not run.

    Raises:
        ModelError: when there is no such folder, class or configuration, or its weights cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    where = str(folder)
    name = _class_name(folder)
    # it imports torchvision where that is installed
    prepare_torchvision()
    transformers = _library("transformers", "transformers")
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ModelError(
            f"names the class {name!r}, which transformers {transformers.__version__} does not have.",
            where=where,
            hint="Write a function that builds the model, and give file.py:callable.",
        )
    if not any(folder.glob(SAFE)):
        if any(folder.glob(PICKLED)):
            raise ModelError(
                "holds pickled weights (.bin) alone, which are not loaded, as that could run code.",
                where=where,
                hint="Save them with model.save_pretrained(DIR, safe_serialization=True).",
            )
        with _same_weights(), _named_errors(where, name):
            config = transformers.AutoConfig.from_pretrained(where, local_files_only=True, trust_remote_code=False)
            fresh: nn.Module = kind(config)
        return fresh.eval()
    with _named_errors(where, name):
        module: nn.Module = kind.from_pretrained(where, local_files_only=True, use_safetensors=True)  # type: ignore[attr-defined]  # a PreTrainedModel
    return module


LIBRARIES: Mapping[str, Callable[[str], nn.Module]] = {
    "torchvision": from_torchvision,
    "timm": from_timm,
    "hf": lambda name: from_hugging_face(Path(name).expanduser()),
}


def _class_name(folder: Path) -> str:
    """The class that `config.json` names."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        own_code = config.get("auto_map")
        names = config.get("architectures") or []
    except OSError as error:
        what = "has no config.json." if folder.is_dir() else "is no folder."
        raise ModelError(what, where=str(folder), hint="Give a folder that model.save_pretrained() wrote.") from error
    except (ValueError, AttributeError) as error:
        raise ModelError("is no configuration of a model.", where=str(path)) from error
    if own_code:
        raise ModelError(
            "brings code of its own (auto_map), which is not run.",
            where=str(path),
            hint="Write a function that builds the model, and give file.py:callable.",
        )
    if not names or not isinstance(names[0], str):
        hint = "Name the class, such as BertForSequenceClassification."
        raise ModelError("names no class under `architectures`.", where=str(path), hint=hint)
    return str(names[0])


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        hint = f'Install it with: pip install "autocompress[{extra}]"'
        raise MissingExtraError("is not installed.", where=name, hint=hint) from error


@contextmanager
def _named_errors(where: str, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ModelError(
            f"{name} cannot be built ({type(error).__name__}: {first_line(error)}).", where=where
        ) from error


@contextmanager
def _same_weights() -> Iterator[None]:
    """Draw the same random weights each time, without a library's warnings that it will draw others."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(0)
        yield
