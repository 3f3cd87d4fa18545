import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from autocompress.data.vision import import_torchvision, prepare_torchvision
from autocompress.errors import MissingExtraError

ROOT = Path(__file__).parents[2]
# an interpreter each, since operators cannot be taken back: forks of one that has imported torch, and what torchvision
# imports of it, which takes most of their time
PROGRAM = """
import json, os, sys, traceback
import torch, torch._dynamo
assert "torchvision" not in sys.modules
found = {}
for name, code in json.load(sys.stdin).items():
    read, write = os.pipe()
    if os.fork() == 0:
        os.dup2(write, 1)
        os.dup2(write, 2)
        failed = False
        try:
            exec(code, {})
        except BaseException:
            traceback.print_exc()
            failed = True
        sys.stdout.flush()
        os._exit(failed)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    found[name] = [os.waitstatus_to_exitcode(os.wait()[1]), text.strip()]
print(json.dumps(found))
"""
SNIPPETS = {
    "importable": """
import torch
from autocompress.data.vision import import_torchvision
torchvision = import_torchvision()
assert import_torchvision() is torchvision
print(tuple(torchvision.models.squeezenet1_1().eval()(torch.zeros(1, 3, 64, 64)).shape))
""",
    "prepared": """
from autocompress.data.vision import prepare_torchvision
prepare_torchvision(); prepare_torchvision()
import torchvision
print(torchvision.transforms.__name__)
""",
    "failed": """
from autocompress.data.vision import import_torchvision
try:
    import torchvision
except RuntimeError:
    pass
print(import_torchvision().models.__name__)
""",
    "own operators": """
import torch
own = torch.library.Library("torchvision", "DEF")
own.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
own.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
own.impl("nms", lambda dets, scores, iou_threshold: scores + 1, "CPU")
from autocompress.data.vision import import_torchvision
import_torchvision()
print(torch.ops.torchvision.nms(torch.ones(1, 4), torch.ones(1), 0.5).item())
""",
    "does not fit": """
import pathlib, sys, tempfile
folder = pathlib.Path(tempfile.mkdtemp(), "torchvision")
folder.mkdir()
(folder / "__init__.py").write_text("raise RuntimeError('built for another torch')\\n", encoding="utf-8")
sys.path.insert(0, str(folder.parent))
from autocompress.errors import MissingExtraError
from autocompress.data.vision import import_torchvision
try:
    import_torchvision()
except MissingExtraError as error:
    print(error)
""",
}


class Ended(NamedTuple):
    """Exit code and output of a snippet."""

    code: int
    text: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """What each snippet left."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(SNIPPETS),
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path_factory.mktemp("vision"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: Ended(*one) for name, one in json.loads(done.stdout).items()}


def test_torchvision_is_importable_and_its_models_run(ended: dict[str, Ended]) -> None:
    assert ended["importable"] == (0, "(1, 1000)")


def test_after_preparing_anyone_may_import_torchvision(ended: dict[str, Ended]) -> None:
    assert ended["prepared"] == (0, "torchvision.transforms")


def test_an_import_that_failed_before_works_afterwards(ended: dict[str, Ended]) -> None:
    assert ended["failed"] == (0, "torchvision.models")


def test_operators_that_are_there_are_left_as_they_are(ended: dict[str, Ended]) -> None:
    assert ended["own operators"] == (0, "2.0")


def test_a_missing_torchvision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    prepare_torchvision()
    with pytest.raises(MissingExtraError, match=r'torchvision: is not .* pip install "autocompress\[data\]"'):
        import_torchvision()


def test_a_torchvision_that_does_not_fit_is_told_apart_from_a_missing_one(ended: dict[str, Ended]) -> None:
    code, said = ended["does not fit"]
    assert code == 0, said
    assert "torchvision: cannot be imported (RuntimeError: built for another torch)." in said
    assert "Install the version that fits torch" in said
