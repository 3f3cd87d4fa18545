"""Mistakes that users make in profiles, budgets, specs, files and options."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch
from mistakes import PROFILE, Mistake


def npz(**arrays: Any) -> bytes:
    """The bytes of a numpy archive."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def saved(content: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def profile(text: str) -> dict[str, str]:
    return {"mine.yaml": text}


X = np.zeros((30, 3, 8, 8), dtype=np.float32)
Y = np.arange(30) % 3
OBJECTS = np.array([None, [1, 2]], dtype=object)
LINEAR = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2)}

PROFILES = (
    Mistake("a tab", ("TAB",), files=profile("name: mine\nbudgets:\n\tsize_mb: 0.5x\n")),
    Mistake("an unknown key", ("KEY",), files=profile(PROFILE + "thread: 2\n")),
    Mistake("a list of budgets", ("LIST",), files=profile("name: mine\nbudgets:\n  - size_mb: 0.5x\n")),
    Mistake("a file that is not there", ("MISSING",), options={"--profile": "my.yaml"}),
    Mistake("an empty file", ("EMPTY",), files=profile("")),
    Mistake("a budget at the top", ("TOP",), files=profile("name: mine\nsize_mb: 0.5x\n")),
    Mistake("no name", ("NONAME",), files=profile("budgets: {size_mb: 0.5x}\n")),
    Mistake("threads: all", ("THREADS",), files=profile(PROFILE + "runtime: {threads: all}\n")),
    Mistake("threads: 0", ("THREADS0",), files=profile(PROFILE + "runtime: {threads: 0}\n")),
    Mistake("threads: 2.5", ("THREADS25",), files=profile(PROFILE + "runtime: {threads: 2.5}\n")),
    Mistake("an unknown runtime", ("RUNTIME",), files=profile(PROFILE + "runtime: {name: tflite}\n")),
    Mistake("an unknown connection", ("CONN",), files=profile(PROFILE + "device: {connection: usb}\n")),
    Mistake("an unknown class", ("CLASS",), files=profile(PROFILE + "device: {class: phone}\n")),
    Mistake("confidence 95", ("CONF",), files=profile(PROFILE + "confidence: 95\n")),
    Mistake("statistic median", ("STAT",), files=profile(PROFILE.replace("{max_seconds", "{statistic: median, max_seconds"))),
    Mistake("an unknown objective", ("OBJ",), files=profile(PROFILE + "objective: speed\n")),
    Mistake("a repeated key", ("TWICE",), files=profile(PROFILE + "budgets: {size_mb: 1}\n")),
    Mistake("json with comments", ("JSON",), files=profile('{"name": "mine", // mine\n "budgets": {}}')),
    Mistake("no budgets", ("NOBUD",), files=profile("name: mine\n")),
    Mistake("a budget with its unit", ("UNIT",), files=profile("name: mine\nbudgets: {size_mb: 5 MB}\n")),
    Mistake("a budget in percent", ("PCT",), files=profile("name: mine\nbudgets: {latency_ms: 50%}\n")),
    Mistake("a budget of null", ("NULL",), files=profile("name: mine\nbudgets: {latency_ms: }\n")),
    Mistake("keep_float as one text", ("KFTEXT",), files=profile(PROFILE + "keep_float: fc\n")),
    Mistake("a pattern of no layer", ("KFNONE",), files=profile(PROFILE + "keep_float: [head*]\n")),
    Mistake("inputs without a batch", ("INP",), files=profile(PROFILE + "inputs: {x: 8}\n")),
)
BUDGETS = (
    Mistake("percent", ("PERC",), more=("--size-mb", "50%")),
    Mistake("a unit", ("UNIT2",), more=("--size-mb", "5MB")),
    Mistake("negative", ("NEG",), more=("--latency-ms", "-1")),
    Mistake("nan", ("NANB",), more=("--latency-ms", "nan")),
    Mistake("200 points", ("PP200",), more=("--max-accuracy-drop-pp", "200")),
    Mistake("a drop as a share", ("PPX",), more=("--max-accuracy-drop-pp", "0.99x")),
    Mistake("a fraction of accuracy", ("ACC",), more=("--min-accuracy", "0.92")),
    Mistake("zero", ("ZERO",), more=("--size-mb", "0")),
    Mistake("bytes in place of MB", ("BYTES",), more=("--size-mb", "5000000")),
    Mistake("comma", ("COMMA",), more=("--size-mb", "0,5x")),
    Mistake("contradiction", ("CONTRA",), more=("--min-accuracy", "99.9", "--max-accuracy-drop-pp", "50")),
    Mistake("unknown flag", ("FLAG",), more=("--accuracy", "1")),
    Mistake("score drop and pp", ("BOTH",), more=("--max-score-drop", "0.1", "--max-accuracy-drop-pp", "1")),
    Mistake("energy without counters", ("ENERGY",), more=("--energy-mj", "1")),
)
SPECS = (
    Mistake("a missing function", ("SMISS",), options={"--model": "mine.py:modle"}),
    Mistake("a file without a function", ("SNOFUN",), options={"--model": "mine.py"}),
    Mistake("a missing file", ("SNOFILE",), options={"--model": "min.py:model"}),
    Mistake("a path to a checkpoint", ("SPT",), files={"net.pt": saved(LINEAR)}, options={"--model": "net.pt"}),
    Mistake("an ONNX file", ("SONNX",), files={"net.onnx": b"\x08\x08"}, options={"--model": "net.onnx"}),
    Mistake("a folder", ("SDIR",), options={"--model": "."}),
    Mistake("a missing module", ("SMOD",), options={"--model": "nets.cnn:model"}),
    Mistake("a failing import", ("SIMP",), code="import einops_of_mine\n"),
    Mistake("unknown torchvision", ("STV",), options={"--model": "torchvision:resnet19"}),
    Mistake("unknown prefix", ("SPRE",), options={"--model": "torch:resnet18"}),
    Mistake("unknown timm", ("STIMM",), options={"--model": "timm:resnet19"}),
    Mistake("hf online name", ("SHF",), options={"--model": "hf:bert-base-uncased"}),
    Mistake("weights missing", ("WMISS",), options={"--weights": "net.pt"}),
    Mistake("weights of another net", ("WOTHER",), files={"net.pt": saved(LINEAR)}, options={"--weights": "net.pt"}),
    Mistake("weights of another size", ("WSIZE",), files={"net.pt": saved({"conv.weight": torch.zeros(4, 3, 3, 3), "conv.bias": torch.zeros(4), "fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)})}, options={"--weights": "net.pt"}),
    Mistake("weights in a training checkpoint", ("WCKPT",), files={"net.pt": saved({"epoch": 3, "model": LINEAR, "optimizer": {"state": {}}})}, options={"--weights": "net.pt"}),
    Mistake("weights pickled", ("WPICK",), files={"net.pt": saved(torch.nn.Linear(2, 2))}, options={"--weights": "net.pt"}),
    Mistake("weights are text", ("WTEXT",), files={"net.pt": "version https://git-lfs.github.com/spec/v1\n"}, options={"--weights": "net.pt"}),
    Mistake("weights safetensors", ("WSAFE",), files={"net.safetensors": b"\x02\0\0\0\0\0\0\0{}"}, options={"--weights": "net.safetensors"}),
    Mistake("task missing", ("TMISS",), options={"--data": "mine.py:taks"}),
    Mistake("task needs args", ("TARGS",), code="def task(root):\n    return of()\n"),
    Mistake("task returns None", ("TNONE",), code="def task():\n    of()\n"),
    Mistake("task raises", ("TRAISE",), code="def task():\n    return of(test=np.load('x_test.npy'))  # LINE\n"),
    Mistake("no model", ("NOMODEL",), options={"--model": ""}),
    Mistake("no data no inputs", ("NODATA",), options={"--data": ""}),
    Mistake("input spec wrong", ("INSPEC",), options={"--data": ""}, more=("--input", "3,8,8")),
    Mistake("input without batch", ("INNOB",), options={"--data": ""}, more=("--input", "3x8x8")),
    Mistake("unknown output", ("OUTP",), more=("--output", "logits")),
)
FILES = (
    Mistake("npz without x_test", ("NX",), files={"d.npz": npz(x=X, y=Y)}, options={"--data": "d.npz"}),
    Mistake("npz only train", ("NTRAIN",), files={"d.npz": npz(x_train=X, y_train=Y)}, options={"--data": "d.npz"}),
    Mistake("npz with objects", ("NOBJ",), files={"d.npz": npz(x_test=OBJECTS, y_test=np.arange(2))}, options={"--data": "d.npz"}),
    Mistake("npz wrong key", ("NKEY",), files={"d.npz": npz(x_test=X, y_test=Y, X_train=X, y_train=Y)}, options={"--data": "d.npz"}),
    Mistake("npy", ("NPY",), files={"d.npz": b"\x93NUMPY"}, options={"--data": "d.npz"}),
    Mistake("a pickle named npz", ("NPICK",), files={"d.npz": pickle.dumps({"x": 1})}, options={"--data": "d.npz"}),
    Mistake("npz missing", ("NMISS",), options={"--data": "d.npz"}),
    Mistake("csv", ("CSV",), files={"d.csv": "1,2\n"}, options={"--data": "d.csv"}),
    Mistake("folder of images", ("FOLDER",), options={"--data": "."}),
    Mistake("npz lengths", ("NLEN",), files={"d.npz": npz(x_test=X, y_test=Y[:10])}, options={"--data": "d.npz"}),
    Mistake("npz onehot", ("NHOT",), files={"d.npz": npz(x_test=X, y_test=np.eye(3)[Y])}, options={"--data": "d.npz"}),
    Mistake("npz label range", ("NRANGE",), files={"d.npz": npz(x_test=X, y_test=Y, x_train=X + 1, y_train=Y + 1)}, options={"--data": "d.npz"}),
    Mistake("npz uint8 float model", ("NU8",), files={"d.npz": npz(x_test=X.astype(np.int64), y_test=Y)}, options={"--data": "d.npz"}),
    Mistake("a misspelled set", ("SET",), options={"--data": "cifar-10"}),
    Mistake("cifar10 not downloaded", ("CIFAR",), options={"--data": "cifar10"}),
    Mistake("augment for no images", ("AUG",), files={"d.npz": npz(x_test=X[:, :, 0, 0], y_test=Y)}, options={"--data": "d.npz"}, more=("--augment", "flip")),
)
OPTIONS = (
    Mistake("out is a file", ("OUTFILE",), options={"--out": "mine.py"}),
    Mistake("out below a file", ("OUTBELOW",), options={"--out": "mine.py/run"}),
    Mistake("out unwritable", ("OUTRO",), options={"--out": "/proc/run"}),
    Mistake("max-time 0", ("MT0",), more=("--max-time", "0")),
    Mistake("max-time word", ("MTW",), more=("--max-time", "5min")),
    Mistake("max-time day", ("MTD",), more=("--max-time", "1d")),
    Mistake("objective", ("OBJ2",), more=("--objective", "speed")),
    Mistake("keep-float none", ("KF",), more=("--keep-float", "head")),
    Mistake("ignore none", ("IG",), more=("--ignore", "bn*")),
    Mistake("augment", ("AUG2",), more=("--augment", "crop")),
)
ON_THE_COMMAND_LINE = (*PROFILES, *BUDGETS, *SPECS, *FILES, *OPTIONS)
