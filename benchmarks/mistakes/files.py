"""Mistakes in what is named on the command line, in data files and in options."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch

from mistakes.kinds import Mistake

X = np.zeros((30, 3, 8, 8), dtype=np.float32)
Y = np.arange(30) % 3
OBJECTS = np.array([None, [1, 2]], dtype=object)
LINEAR = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2)}
SIZES = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "fc.weight": (10, 4), "fc.bias": (10,)}


def _npz(**arrays: Any) -> bytes:
    """The bytes of a numpy archive."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _saved(content: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _model(what: str, spec: str, *says: str) -> Mistake:
    return Mistake(what, says, options={"--model": spec})


def _weights(what: str, content: bytes | str | None, *says: str) -> Mistake:
    files = {} if content is None else {"net.pt": content}
    return Mistake(what, (f"net.pt: {says[0]}", *says[1:]), files=files, options={"--weights": "net.pt"})


def _data(what: str, content: bytes | None, *says: str) -> Mistake:
    files = {} if content is None else {"d.npz": content}
    return Mistake(what, (f"d.npz: {says[0]}", *says[1:]), files=files, options={"--data": "d.npz"})


def _set(what: str, spec: str, *says: str) -> Mistake:
    return Mistake(what, says, options={"--data": spec})


def _option(what: str, option: str, value: str, *says: str) -> Mistake:
    return Mistake(what, says, more=(option, value))


SPECS = (
    _model("a misspelt function", "mine.py:modle", "mine.py: has no callable 'modle'", "Did you mean 'model'?"),
    _model("a file without a function", "mine.py", "'mine.py': names no callable", "mine.py:NAME"),
    _model("a file that is not there", "min.py:model", "min.py: does not exist", "Relative paths"),
    _model("a checkpoint in place of code", "net.pt", "names no callable", "--weights net.pt"),
    _model("a folder", ".", "names no callable", "file.py:callable"),
    _model("a module that is not there", "nets.cnn:model", "no module 'nets'", "file.py:callable"),
    _model("an unknown model of torchvision", "torchvision:resnet19", "'resnet19'", "Did you mean 'resnet18'?"),
    _model("a name of the hub", "hf:bert-base-uncased", "is no folder", "save_pretrained()"),
    Mistake(
        "an import that fails",
        ("No module named", "einops_of_mine"),
        "import einops_of_mine\n",
        line="import einops_of_mine",
    ),
    _weights("weights that are not there", None, "does not exist", "torch.save(model.state_dict(), FILE)"),
    _weights("weights of another network", _saved(LINEAR), "does not fit the model", "'conv.weight'"),
    _weights(
        "weights of another size",
        _saved({name: torch.zeros(shape) for name, shape in SIZES.items()}),
        "does not fit the model",
        "(10, 4), the model's is (3, 4)",
    ),
    _weights(
        "a checkpoint of a training",
        _saved({"epoch": 3, "model": LINEAR, "optimizer": {}}),
        "holds a dict with the keys epoch, model, optimizer",
        "'model'",
    ),
    _weights("a pickled module", _saved(torch.nn.Linear(2, 2)), "holds a Python object", "not unpickled"),
    _weights("a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\n", "is not a checkpoint"),
    _set("a misspelt task", "mine.py:taks", "has no callable 'taks'", "Did you mean 'task'?"),
    Mistake("a task that needs arguments", ("task() cannot be called", "'root'"), "def task(root):\n    return of()\n"),
    Mistake("a task that returns nothing", ("task() returned None, not a Task",), "def task():\n    of()\n"),
    Mistake(
        "data that the task does not find",
        ("FileNotFoundError", "x_test.npy"),
        'def task():\n    return of(test=np.load("x_test.npy"))\n',
        line='return of(test=np.load("x_test.npy"))',
    ),
    _set("neither data nor shapes", "", "nothing to call it with", "--input"),
    Mistake("a shape with commas", ("is not an input spec",), options={"--data": ""}, more=("--input", "3,8,8")),
    Mistake("a shape without a batch", ("a batch axis",), options={"--data": ""}, more=("--input", "3x8x8")),
)
FILES = (
    _data("an archive of other keys", _npz(x=X, y=Y), "has an unknown key 'x'", "x_test"),
    _data("an archive of training items alone", _npz(x_train=X, y_train=Y), "has no x_test"),
    _data("an archive of objects", _npz(x_test=OBJECTS, y_test=Y[:2]), "x_test: holds Python objects", "not unpickled"),
    _data(
        "a key in capitals",
        _npz(x_test=X, y_test=Y, X_train=X, y_train=Y),
        "has an unknown key 'X_train'",
        "Did you mean 'x_train'?",
    ),
    _data("a pickle named npz", pickle.dumps({"x": 1}), "is not an npz file"),
    _data("an archive that is not there", None, "does not exist", "Relative paths"),
    _data("labels that are missing", _npz(x_test=X, y_test=Y[:10]), "x_test holds 30 items and y_test 10"),
    _data("one-hot labels, saved", _npz(x_test=X, y_test=np.eye(3)[Y]), "y_test: labels have shape", "argmax(1)"),
    _data(
        "training labels from 1 in an archive",
        _npz(x_test=X, y_test=Y, x_train=X + 1, y_train=Y + 1),
        "train: label 3 is out of range",
    ),
    Mistake(
        "whole numbers for a float model",
        ("torch.int64", "give float32"),
        files={"d.npz": _npz(x_test=X.astype(np.int64), y_test=Y)},
        options={"--data": "d.npz"},
    ),
    _set("a table of text", "d.csv", "'d.csv': names no data", "PATH.npz"),
    _set("a folder of images", ".", "'.': names no data", "file.py:callable"),
    _set("a misspelt data set", "cifar-10", "names no data", "Did you mean 'cifar10'?"),
    _set("a data set that was not downloaded", "cifar10", "was not found", "--download"),
    Mistake(
        "images flipped that are none",
        ("'flip' is for batches of images", "Leave it out"),
        files={"d.npz": _npz(x_test=X[:, :, 0, 0], y_test=Y)},
        options={"--data": "d.npz"},
        more=("--augment", "flip"),
    ),
)
OPTIONS = (
    _option("a folder that is a file", "--out", "mine.py", "mine.py: cannot be used as the run's folder"),
    _option("a folder below a file", "--out", "mine.py/run", "cannot be used as the run's folder", "--out"),
    _option("a folder that cannot be made", "--out", "/proc/run", "cannot be used as the run's folder"),
    _option("no time", "--max-time", "0", "--max-time: '0' is not a positive time", "20m"),
    _option("minutes in words", "--max-time", "5min", "--max-time: '5min' is not a positive time", "20m"),
    _option("an unknown objective", "--objective", "speed", "'speed' is not an objective", "latency"),
    _option("a layer that is not there", "--keep-float", "head", "keep_float: there is no layer named 'head'"),
    _option("a pattern of no layer to ignore", "--ignore", "bn*", "ignore: there is no layer named 'bn*'"),
    _option("an unknown augmentation", "--augment", "crop", "no 'crop'", "Did you mean 'crop-flip'?"),
    _option("an output that is not there", "--output", "logits", "outputs: has no output 'logits'", "It has output"),
)
