"""What a mistake of a user is, and the folder of a user who makes none otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# a user's file that is right; a mistake defines one of its functions or classes anew below it
HEAD = """\
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autocompress import Task

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((180, 3, 8, 8)).astype(np.float32)
Y = RANDOM.integers(0, 3, 180)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def net(kind=Net):
    torch.manual_seed(0)
    return kind().eval()


def tensors(x=X, y=Y):
    return TensorDataset(torch.as_tensor(x), torch.as_tensor(y))


def of(**changed):
    return Task(**{"train": (X[:90], Y[:90]), "test": (X[90:], Y[90:]), **changed})


def model():
    return net()


def task():
    return of()
"""
PROFILE = """\
name: mine
protocol: {max_seconds: 0.2, precision: 0.5}
budgets: {size_mb: 0.5x, max_accuracy_drop_pp: 5}
"""
SPECS = {"--model": "mine.py:model", "--data": "mine.py:task", "--profile": "mine.yaml", "--out": "out"}


@dataclass(frozen=True)
class Mistake:
    """A mistake that a user makes, and what the error line has to hold.

    Args:
        what: the mistake in a few words.
        says: the essential words of the error line.
        code: lines of Python below `HEAD` in `mine.py`.
        line: the line of `code` that the error has to name.
        files: further files of the user's folder, by name; a text or what `numpy` or `torch` save.
        options: those of the command line that differ from `SPECS`; with an empty value left out.
        more: further words of the command line.
    """

    what: str
    says: tuple[str, ...]
    code: str = ""
    line: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The command line, without the program's name."""
        options = {**SPECS, **self.options}
        return ["run", *(word for pair in options.items() if pair[1] for word in pair), *self.more]

    @property
    def place(self) -> str:
        """How the error names the user's line, empty where it is about none."""
        if not self.line:
            return ""
        lines = (HEAD + self.code).splitlines()
        number = next(n for n, text in enumerate(lines, 1) if n > HEAD.count("\n") and text.strip() == self.line)
        return f"mine.py, line {number}"

    def write(self, folder: Path) -> None:
        """Write the user's files."""
        (folder / "mine.py").write_text(HEAD + self.code, encoding="utf-8")
        (folder / "mine.yaml").write_text(PROFILE, encoding="utf-8")
        for name, content in self.files.items():
            path = folder / name
            path.write_text(content, encoding="utf-8") if isinstance(content, str) else path.write_bytes(content)
