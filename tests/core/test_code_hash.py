"""Hashes of callables: equal in every process, different where the callable does something else."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.code_hash import code_hash


def module_of(text: str) -> dict[str, Any]:
    """The names that a user's file with this text defines."""
    names: dict[str, Any] = {"__name__": "users_file"}
    exec(compile(textwrap.dedent(text), "users_file.py", "exec"), names)
    return names


def score_of(text: str) -> str:
    return code_hash(module_of(text)["score"])


PLAIN = """
    FACTOR = 2
    def helper(values):
        return values * FACTOR
    def score(outputs, targets):
        return helper(outputs) - targets
"""


def test_the_same_code_has_the_same_hash_wherever_it_stands() -> None:
    # another line number says nothing about what the code does
    assert score_of(PLAIN) == score_of("import math\n\n\n" + textwrap.dedent(PLAIN))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- targets", "+ targets"),
        ("FACTOR = 2", "FACTOR = 3"),
        ("values * FACTOR", "values / FACTOR"),
        ("outputs, targets", "outputs, targets, weight=1.0"),
    ],
)
def test_a_change_of_the_function_or_of_what_it_uses_changes_the_hash(old: str, new: str) -> None:
    assert score_of(PLAIN) != score_of(PLAIN.replace(old, new, 1))


def test_recursive_functions_and_objects_end() -> None:
    text = "def score(n):\n    return other(n)\ndef other(n):\n    return score(n - 1) if n else 0\n"
    assert score_of(text) == score_of(text)
    thing = module_of("class Thing:\n    pass\n")["Thing"]()
    thing.itself = [thing]
    assert code_hash(thing) == code_hash(thing)


def closed_over(value: Any) -> Callable[[], Any]:
    return lambda: value


class Scaled:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return outputs * self.factor


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor: Any) -> None:
        self.factor = factor


@pytest.mark.parametrize(
    "make",
    [
        closed_over,
        Scaled,
        Slotted,
        lambda factor: Scaled(factor).__call__,
        lambda factor: functools.partial(max, factor),
        lambda factor: functools.cache(closed_over(factor)),
        lambda factor: {"a": [factor]},
        lambda factor: {factor, 5},
        lambda factor: nn.CrossEntropyLoss(label_smoothing=factor),
        lambda factor: nn.CrossEntropyLoss(torch.tensor([factor])),
        lambda factor: np.array([factor]),
        lambda factor: np.array([str(factor)], dtype=object),
        lambda factor: Path(f"masks/{factor}"),
    ],
)
def test_values_that_a_callable_holds_count(make: Callable[[Any], Any]) -> None:
    assert code_hash(make(0.1)) == code_hash(make(0.1))
    assert code_hash(make(0.1)) != code_hash(make(0.2))


def test_classes_of_the_user_count_by_their_methods() -> None:
    texts = [
        f"class Loss:\n    def __call__(self, a, b):\n        return a {sign} b\nscore = Loss()\n" for sign in "+-"
    ]
    assert score_of(texts[0]) != score_of(texts[1])
    assert score_of(texts[0]) == score_of(texts[0])
    bases = [
        f"class Base:\n    def f(self):\n        return {n}\nclass Score(Base):\n    pass\nscore = Score()\n"
        for n in "12"
    ]
    assert score_of(bases[0]) != score_of(bases[1])


def test_nothing_differs_from_process_to_process(tmp_path: Path) -> None:
    (tmp_path / "users.py").write_text(
        "import logging, threading\nimport numpy as np\nimport torch\n"
        "LOG = logging.getLogger(__name__)\nLOCK = threading.Lock()\nNAMES = {'b', 'a', 'c'}\n"
        "def score(outputs, targets):\n    with LOCK:\n        LOG.info('%s', NAMES)\n"
        "        return [np.mean(one) in NAMES for one in outputs]\n"
        "loss = torch.nn.Sequential(torch.nn.ReLU())\n"
    )
    program = (
        "import users\nfrom autocompress.core.code_hash import code_hash\nprint(code_hash([users.score, users.loss]))"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
