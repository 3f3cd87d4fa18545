"""Checkpoints that something has damaged from outside: made again, with a word, and the answer stays the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autocompress.core.plan import Plan, Stage, Step
from autocompress.data.data_spec import load_data
from autocompress.run.setup import declared, open_run
from autocompress.techniques import Int8Static
from e2e.conftest import one_thread
from e2e.killing import trained

SCHEDULE = {"steps": 20, "batch": 64, "seed": 0, "learning_rate": 0.02, "optimizer": "sgd"}
RECOVER = Step("distillation", Stage.RECOVERY, SCHEDULE)
DROP = Step("block_dropping", Stage.STRUCTURE, {"blocks": "1.2"})
REST = {"calibration": "minmax", "samples": 64, "reduce_range": False}
INT8 = Step("int8_static", Stage.PRECISION, {**Int8Static.probed[0], **REST})
PLAN = Plan(((DROP, RECOVER), (RECOVER,)), (INT8,))
# what each round left, named as the builder names it
FIRST, SECOND = Plan(PLAN.rounds[:1]).hash, Plan(PLAN.rounds).hash


def build(user: Path, out: Path) -> str:
    """The hash of the plan's file, in a run that is resumed if it is there."""
    with one_thread():
        profile = declared("local", {"size_mb": "0.2x"})
        run = open_run(trained(user), profile, load_data("digits"), out=out, resume=True)
        try:
            return run.artifacts.build(PLAN).hash
        finally:
            run.close()


@pytest.fixture(scope="module")
def built(block_user: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("damage") / "run"
    return out, build(block_user, out)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _of_another_shape(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor[:1] if tensor.ndim else tensor for name, tensor in state.items()}, path)


@pytest.mark.parametrize("damage", [_cut, _of_another_shape])
def test_a_module_that_cannot_be_read_is_made_again_from_the_round_before(
    built: tuple[Path, str], block_user: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = shutil.copytree(built[0], tmp_path / "run")
    for name in (FIRST, SECOND):
        damage(out / "checkpoints" / name / "module.pt")
    (out / "checkpoints" / SECOND / "float.onnx").unlink()
    with pytest.warns(UserWarning, match=r"module\.pt cannot be used .*afresh"):
        assert build(block_user, out) == built[1]


def test_an_exported_file_that_cannot_be_read_is_exported_again(
    built: tuple[Path, str], block_user: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(built[0], tmp_path / "run")
    _cut(out / "checkpoints" / SECOND / "float.onnx")
    assert build(block_user, out) == built[1]
