import os
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.data.vision import import_torchvision, prepare_torchvision
from autocompress.errors import MissingExtraError

ROOT = Path(__file__).parents[2]


def run(code: str, **environment: str) -> str:
    """Standard output of a fresh interpreter: operators cannot be taken back in this one."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_is_importable_and_its_models_run() -> None:
    code = """
import torch
from autocompress.data.vision import import_torchvision
torchvision = import_torchvision()
assert import_torchvision() is torchvision
print(tuple(torchvision.models.squeezenet1_1().eval()(torch.zeros(1, 3, 64, 64)).shape))
"""
    assert run(code) == "(1, 1000)"


def test_after_preparing_anyone_may_import_torchvision() -> None:
    code = """
from autocompress.data.vision import prepare_torchvision
prepare_torchvision(); prepare_torchvision()
import torchvision
print(torchvision.transforms.__name__)
"""
    assert run(code) == "torchvision.transforms"


def test_an_import_that_failed_before_works_afterwards() -> None:
    code = """
from autocompress.data.vision import import_torchvision
try:
    import torchvision
except RuntimeError:
    pass
print(import_torchvision().models.__name__)
"""
    assert run(code) == "torchvision.models"


def test_operators_that_are_there_are_left_as_they_are() -> None:
    code = """
import torch
own = torch.library.Library("torchvision", "DEF")
own.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
own.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
own.impl("nms", lambda dets, scores, iou_threshold: scores + 1, "CPU")
from autocompress.data.vision import import_torchvision
import_torchvision()
print(torch.ops.torchvision.nms(torch.ones(1, 4), torch.ones(1), 0.5).item())
"""
    assert run(code) == "2.0"


def test_a_missing_torchvision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    prepare_torchvision()
    with pytest.raises(MissingExtraError, match=r'torchvision: is not .* pip install "autocompress\[data\]"'):
        import_torchvision()


def test_a_torchvision_that_does_not_fit_is_told_apart_from_a_missing_one(tmp_path: Path) -> None:
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('built for another torch')\n", encoding="utf-8")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from autocompress.errors import MissingExtraError
from autocompress.data.vision import import_torchvision
try:
    import_torchvision()
except MissingExtraError as error:
    print(error)
"""
    said = run(code)
    assert "torchvision: cannot be imported (RuntimeError: built for another torch)." in said
    assert "Install the version that fits torch" in said
