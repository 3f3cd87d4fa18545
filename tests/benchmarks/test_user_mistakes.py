"""Mistakes of users: one line that says what, where and what to do, exit code 2, and no file is written."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from e2e.command import command
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.runtime import Example
from autocompress.runtimes import OnnxRuntime

# the table of benchmarks/user_mistakes.py
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from mistakes import MISTAKES, Mistake

sys.path.pop(0)
EVERY = {f"{group}: {one.what}": one for group, several in MISTAKES.items() for one in several}
# every sixth in each test run, all of them with the slow ones: they take longer than any other file of tests
CASES = [name if not place % 6 else pytest.param(name, marks=pytest.mark.slow) for place, name in enumerate(EVERY)]
INSIDE = re.compile(r"Traceback|site-packages|autocompress/|/tmp/|internal:")


@pytest.fixture(scope="module")
def exports_kept() -> Iterator[None]:
    """Exports of equal modules are kept: the export takes longer than all else that a mistake needs."""
    kept: dict[str, bytes] = {}
    export: Callable[..., Artifact] = OnnxRuntime.export

    def once(
        self: OnnxRuntime,
        module: nn.Module,
        example: Example,
        to: Path,
        keep: Sequence[str] = (),
        *,
        named: bool = False,
    ) -> Artifact:
        key = f"{named} {_key(module, example)}"
        if key in kept:
            to.write_bytes(kept[key])
            return self.read(to)
        artifact = export(self, module, example, to, keep, named=named)
        kept[key] = artifact.path.read_bytes()
        return artifact

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxRuntime, "export", once)
        yield


def _key(module: nn.Module, example: Example) -> str:
    forward: Any = type(module).forward
    parts = [forward.__code__.co_code, repr(forward.__code__.co_names).encode(), repr(module).encode()]
    parts += [repr((name, array.shape, array.dtype)).encode() for name, array in example.arrays.items()]
    parts += [tensor.detach().numpy().tobytes() for tensor in module.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.usefixtures("exports_kept")
@pytest.mark.parametrize("name", CASES)
def test_a_mistake_ends_2_with_one_line_and_writes_nothing(name: str, tmp_path: Path) -> None:
    mistake: Mistake = EVERY[name]
    mistake.write(tmp_path)
    before = files_in(tmp_path)
    done = command(*mistake.words, folder=tmp_path)
    # what a script of the user's prints itself is the user's
    errors = [line for line in done.error_lines if line.startswith("error ")]
    assert len(errors) == 1, done.err
    assert errors[0] == done.error_lines[-1]
    for words in (*mistake.says, mistake.place):
        assert words in errors[0], errors[0]
    assert done.code == 2
    assert not INSIDE.search(errors[0].replace(str(tmp_path), "")), errors[0]
    assert files_in(tmp_path) == before
