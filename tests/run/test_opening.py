"""The user's own functions are tried when a run opens: one line that names the user's line, and no file written."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autocompress.core.aggregate import Aggregate
from autocompress.core.artifact import Artifact
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.data.spec_import import Maker
from autocompress.errors import DataError
from autocompress.run import setup
from autocompress.run.setup import open_run
from autocompress.runtimes.onnxruntime import OnnxRuntime
from autocompress.testing.fakes import FakeDevice

ITEMS = 12
IMAGES = np.random.default_rng(0).standard_normal((ITEMS, 1, 4, 4)).astype(np.float32)
LABELS = np.arange(ITEMS) % 3
OWN = """
import numpy as np
import torch

def look_up(answers, item):
    names = {7: "seven"}
    return names[item]  # no such name

def right(outputs, targets):
    return look_up(outputs.argmax(1), 11)

def score_raises_below(outputs, targets):
    return right(outputs, targets)

def score_raises_in_numpy(outputs, targets):
    return np.take(outputs, 99, axis=1)  # out of bounds

def score_is_a_scalar(outputs, targets):
    return (outputs.argmax(1) == targets).mean()

def score_of_the_wrong_length(outputs, targets):
    return np.ones(len(targets) + 1)

def score_is_nan(outputs, targets):
    return np.full(len(targets), np.nan)

def score_is_ragged(outputs, targets):
    return [[1.0], [1.0, 2.0]]

def score_is_none(outputs, targets):
    (outputs.argmax(1) == targets)

def score_is_a_tensor_of_columns(outputs, targets):
    return torch.ones(len(targets), 1)

def score_of_one_argument(outputs):
    return outputs.max(1)

class ScoreObject:
    def __call__(self, outputs, targets):
        return None

def loss_is_numpy(outputs, targets):
    return outputs.detach().numpy().mean()

def loss_is_a_vector(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

def loss_is_nan(outputs, targets):
    return outputs.sum() * float("nan")

def loss_is_detached(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs.detach(), targets)

def loss_of_other_numbers(outputs, targets):
    return torch.ones((), requires_grad=True) * 2

def loss_of_one_argument(outputs):
    return outputs.mean()

def loss_raises(outputs, targets):
    return torch.nn.functional.nll_loss(outputs[:, :1], targets + 5)  # no such class

class LossModule(torch.nn.Module):
    def forward(self, outputs, targets):
        return outputs

def augment_is_none(images):
    images.flip(3)

def augment_is_numpy(images):
    return images.numpy()

def augment_of_another_batch(images):
    return torch.cat([images, images])

def augment_of_another_shape(images):
    return images[:, :, :2]

def augment_of_another_type(images):
    return images.double()

def augment_raises(images):
    return images @ torch.ones(3, 3)  # does not fit

def collate_raises(items):
    return torch.stack([image for image, label in items]), int(items[0])  # not a number

class FirstRaises(torch.utils.data.Dataset):
    def __len__(self):
        return 30_000

    def __getitem__(self, index):
        if index == 0:
            raise FileNotFoundError("img_0.png")  # is missing
        return torch.zeros(1, 4, 4), index % 3
"""
# the given functions by field, the field that the error is about, what it says, and the user's line
MISTAKES: Mapping[str, tuple[str, str, str]] = {
    "score_raises_below": ("score", "raised KeyError: 11", "return names[item]  # no such name"),
    "score_raises_in_numpy": ("score", "raised IndexError: index 99 is out", "return np.take(outputs, 99, axis=1)"),
    "score_is_a_scalar": ("score", "returned shape () for 2 items", "def score_is_a_scalar"),
    "score_of_the_wrong_length": ("score", "returned shape (3,) for 2 items", "def score_of_the_wrong_length"),
    "score_is_nan": ("score", "returned values that are not finite", "def score_is_nan"),
    "score_is_ragged": ("score", "returned a list, which is no array of numbers", "def score_is_ragged"),
    "score_is_none": ("score", "returned None, which holds object values", "def score_is_none"),
    "score_is_a_tensor_of_columns": ("score", "returned shape (2, 1) for 2", "def score_is_a_tensor_of_columns"),
    "score_of_one_argument": ("score", "raised TypeError: ", "def score_of_one_argument"),
    "ScoreObject": ("score", "returned None", "def __call__(self, outputs, targets)"),
    "loss_is_numpy": ("loss", "returned a float32, not a tensor of one number", "def loss_is_numpy"),
    "loss_is_a_vector": ("loss", "returned a tensor of shape (2,), not", "def loss_is_a_vector"),
    "loss_is_nan": ("loss", "returned nan, which is not finite", "def loss_is_nan"),
    "loss_is_detached": ("loss", "does not depend on the model's outputs", "def loss_is_detached"),
    "loss_of_other_numbers": ("loss", "does not depend on the model's outputs", "def loss_of_other_numbers"),
    "loss_of_one_argument": ("loss", "raised TypeError: ", "def loss_of_one_argument"),
    "loss_raises": ("loss", "raised IndexError: Target", "return torch.nn.functional.nll_loss(outputs[:, :1]"),
    "LossModule": ("loss", "returned a tensor of shape (2, 3), not", "def forward(self, outputs, targets)"),
    "augment_is_none": ("augment", "returned None for a tensor of shape (2, 1, 4, 4)", "def augment_is_none"),
    "augment_is_numpy": ("augment", "returned a numpy array of shape (2, 1, 4, 4)", "def augment_is_numpy"),
    "augment_of_another_batch": ("augment", "returned a tensor of shape (4, 1,", "def augment_of_another_batch"),
    "augment_of_another_shape": ("augment", "what the model cannot take: it fails on", "def augment_of_another_shape"),
    "augment_of_another_type": ("augment", "cannot take: it fails on the inputs", "def augment_of_another_type"),
    "augment_raises": ("augment", "raised RuntimeError: ", "return images @ torch.ones(3, 3)"),
    "collate_raises": ("data: train", "putting items into a batch raised TypeError: ", "return torch.stack([image for"),
    "FirstRaises": ("data: train", "item 0 raised FileNotFoundError: img_0.png", "raise FileNotFoundError"),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    return body.eval()


@cache
def exported() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        return OnnxRuntime().export(network(), Example((IMAGES[:2],)), path).path.read_bytes()


class OnceExported(OnnxRuntime):
    """ONNX Runtime that keeps the export of the network: it takes as long as all else here together."""

    def export(
        self,
        module: nn.Module,
        example: Example,
        destination: Path,
        keep_float: Sequence[str] = (),
        *,
        named: bool = False,
    ) -> Artifact:
        destination.write_bytes(exported())
        return self.read(destination)


Open = Callable[..., None]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a run of the network with a task of these functions, and closes it."""
    monkeypatch.setattr(setup, "tools_of", lambda profile: Tools(OnceExported(), FakeDevice(), []))

    def run(module: nn.Module | None = None, **given: Any) -> None:
        parts = {"test": (IMAGES, LABELS), "train": (IMAGES + 1, LABELS), **given}
        open_run(module or network(), Profile("own"), Task(**parts), out=tmp_path / "run").close()

    return run


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], Any]:
    """What the user's file defines under a name; an instance of a class."""
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")

    def find(name: str) -> Any:
        maker: Maker[Any] = Maker(object, "anything", DataError)
        found = maker.make(str(path), name)
        return found() if isinstance(found, type) else found

    return find


def numbered(line: str) -> str:
    """The line of the user's file that begins so, as errors name it."""
    number, text = next((n, t) for n, t in enumerate(OWN.splitlines(), 1) if t.strip().startswith(line))
    return f"own.py, line {number}: {text.strip().removesuffix(':')}"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_users_line_before_any_file_is_written(
    name: str, opened: Open, own: Callable[[str], Any], tmp_path: Path
) -> None:
    where, says, line = MISTAKES[name]
    function = own(name)
    given = {where: function}
    if where == "data: train":
        dataset = TensorDataset(torch.from_numpy(IMAGES), torch.arange(ITEMS))
        given = {"train": DataLoader(dataset, collate_fn=function) if callable(function) else function}
    with pytest.raises(DataError) as caught:
        opened(**given)
    assert caught.value.where == where
    assert says in caught.value.message
    assert numbered(line) in caught.value.message
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_left_as_it_is(opened: Open, own: Callable[[str], Any], tmp_path: Path) -> None:
    opened()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="returned nan"):
        opened(loss=own("loss_is_nan"))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_score_is_tried_on_the_test_items_too_where_validation_items_are_given(opened: Open, tmp_path: Path) -> None:
    def of_heads(outputs: Any, targets: Any) -> Any:
        return outputs.argmax(1) == targets["kind"]

    with pytest.raises(DataError, match=r"raised IndexError: .*test_opening\.py, line \d+: return outputs"):
        opened(score=of_heads, val=(IMAGES + 2, {"kind": LABELS}))
    assert not (tmp_path / "run").exists()


def test_records_of_an_aggregate_are_tried(opened: Open, own: Callable[[str], Any]) -> None:
    with pytest.raises(DataError, match="returned shape") as caught:
        opened(score=Aggregate("mine", own("score_of_the_wrong_length"), lambda records: float(records.mean())))
    assert numbered("def score_of_the_wrong_length") in caught.value.message


def test_a_score_in_other_bounds_than_it_promises_is_refused_at_once(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bounds"):
        opened(score=lambda outputs, _targets: outputs[:, 0] * 0 + 7, score_bounds=(0, 1))
    assert not (tmp_path / "run").exists()


def draws() -> list[Any]:
    """What the global generators would draw next."""
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    return drawn


def test_trying_leaves_nothing_behind(opened: Open) -> None:
    module, calls = network(), []
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module.train()

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append("loss")
        # in place, as losses of real models may be
        return nn.functional.cross_entropy(outputs.mul_(2.0), targets)

    def augment(images: torch.Tensor) -> torch.Tensor:
        calls.append("augment")
        random.random(), np.random.rand()
        return images.add_(torch.rand(1))

    def score(outputs: Any, targets: Any) -> Any:
        calls.append("score")
        return np.random.rand(len(targets))

    weights, before = {name: value.clone() for name, value in module.state_dict().items()}, draws()
    images = IMAGES.copy()
    opened(module, loss=loss, augment=augment, score=score)
    assert draws() == before
    assert sorted(calls) == sorted(["augment", "loss", "score"] * 2)
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert all(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    np.testing.assert_array_equal(IMAGES, images)


def test_a_batch_without_anything_to_learn_from_is_no_mistake(opened: Open) -> None:
    losses = iter([float("nan"), 1.0])
    opened(loss=lambda outputs, _targets: outputs.sum() * next(losses))


def test_without_training_data_loss_and_augmentation_are_not_tried(opened: Open, own: Callable[[str], Any]) -> None:
    opened(train=None, loss=own("loss_raises"), augment=own("augment_raises"))


def test_functions_of_the_usual_kinds_pass(opened: Open) -> None:
    opened(
        loss=nn.CrossEntropyLoss(weight=torch.ones(3)),
        augment=partial(torch.flip, dims=(3,)),
        score=lambda outputs, targets: torch.from_numpy(outputs).argmax(1) == torch.from_numpy(targets),
    )
