import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from autocompress.core.aggregate import Aggregate
from autocompress.core.task import Task, top1
from autocompress.core.user_code import definition_of, kind_of, line_of, raised_by_user
from autocompress.data.augmentation import flip
from autocompress.errors import DataError


def caught(function: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011 - any type
        function()
    return found.value


def test_the_line_is_the_deepest_one_that_is_no_librarys() -> None:
    line = line_of(caught(lambda: json.loads("{")))
    assert line is not None
    assert Path(line.file).name == "test_user_code.py"
    assert line.text == 'line = line_of(caught(lambda: json.loads("{")))'
    line = line_of(caught(lambda: flip(None)))  # type: ignore[arg-type]
    assert line is not None
    assert "flip(None)" in line.text


def test_an_error_that_passed_no_line_of_the_users_names_none() -> None:
    with pytest.raises(DataError) as found, raised_by_user("score"):
        raise ValueError("two\nlines")
    # the block itself is a line of this file
    assert "raise ValueError" in found.value.message
    assert found.value.message.startswith("raised ValueError: two (")
    assert line_of(ValueError("never raised")) is None
    with pytest.raises(DataError, match=r"^mine$"), raised_by_user("score"):
        raise DataError("mine")


def test_typed_in_code_is_the_users_and_generated_code_is_not() -> None:
    for name, known in (("<stdin>", True), ("<ipython-input-1>", True), ("<string>", False), ("<frozen os>", False)):
        error = caught(functools.partial(exec, compile("1 / 0", name, "exec")))
        line = line_of(error)
        assert line is not None
        assert (line.place == f"{name}, line 1") == known


def wrapped(function: Callable[[], None]) -> Callable[[], None]:
    @functools.wraps(function)
    def inner() -> None:
        function()

    return inner


@wrapped
def decorated() -> None:
    pass


class Called:
    def __call__(self) -> None:
        pass

    def method(self) -> None:
        pass


class Network(nn.Module):
    def forward(self) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (decorated, "def decorated() -> None"),
        (functools.partial(functools.partial(decorated)), "def decorated() -> None"),
        (Called(), "def __call__(self) -> None"),
        (Called().method, "def method(self) -> None"),
        (Network(), "def forward(self) -> None"),
    ],
)
def test_a_definition_is_found_through_what_is_around_it(function: Any, text: str) -> None:
    line = definition_of(function)
    assert line is not None
    assert line.text == text


@pytest.mark.parametrize("function", [top1, flip, json.loads, np.mean, len, nn.CrossEntropyLoss(), None])
def test_what_a_library_defines_has_no_line_of_the_users(function: Any) -> None:
    assert definition_of(function) is None


def test_what_was_returned_is_named_in_words() -> None:
    values = (None, {}, 1, np.ones(2), nn.Parameter, np.float32(1), nn.Linear(2, 3).weight)
    assert [kind_of(value) for value in values] == [
        "None", "a dict", "an int", "a numpy array of shape (2,)", "the class Parameter", "a float32",
        "a tensor of shape (3, 2)",
    ]  # fmt: skip


def test_the_value_of_an_aggregate_that_raises_names_its_line() -> None:
    def value(records: Any) -> Any:
        return records["mean"]

    task = Task(score=Aggregate("mine", lambda outputs, _targets: outputs, value))
    with pytest.raises(DataError, match=r'its value raised IndexError: .*: return records\["mean"\]\)') as found:
        task.value(np.ones((3, 1)))
    assert found.value.where == "score"
