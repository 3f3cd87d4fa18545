import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.data.model_spec import load_model
from autocompress.errors import MissingExtraError, ModelError

NET = """
import torch
from torch import nn

CALLS = []

class Net(nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.fc = nn.Linear(4, width)

    def forward(self, x):
        return self.fc(x)

def model():
    CALLS.append(1)
    return Net(5)

def needs(width):
    return Net(width)

def broken():
    return Net(width="five")

def state():
    return {"fc.weight": torch.zeros(3, 4)}

def nothing():
    pass

def the_class():
    return Net

ready = Net(7)
settings = {"width": 3}
"""
SCRIPT = """
def model():
    raise SystemExit(3)
raise SystemExit("done")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NET, encoding="utf-8")
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def width(module: nn.Module) -> int:
    return int(module(torch.zeros(1, 4)).shape[1])


@pytest.mark.parametrize(("name", "outputs"), [("model", 5), ("Net", 3), ("ready", 7)])
def test_a_file_gives_the_module_of_its_function_class_or_variable(file: Path, name: str, outputs: int) -> None:
    assert width(load_model(f"{file}:{name}")) == outputs


def test_a_relative_path_is_taken_from_the_current_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert width(load_model("nets.py:model")) == 5


def test_a_module_is_found_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "spec_pack" / "__init__.py", "")
    write(tmp_path / "spec_pack" / "nets.py", NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert width(load_model("spec_pack.nets:model")) == 5


def test_a_class_of_an_installed_package_is_called() -> None:
    assert isinstance(load_model("torch.nn:ReLU"), nn.ReLU)


def test_a_file_imports_its_neighbours_then_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path / "spec_neighbour.py", NET)
    write(tmp_path / "spec_late.py", NET)
    path = write(
        tmp_path / "user.py",
        "from spec_neighbour import Net\ndef model():\n    import spec_late\n    return spec_late.model()\n",
    )
    assert width(load_model(f"{path}:Net")) == 3
    assert width(load_model(f"{path}:model")) == 5


def test_a_file_beside_the_users_hides_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = write(tmp_path / "user.py", NET)
    write(tmp_path / "colorsys.py", "raise RuntimeError\n")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    load_model(f"{path}:model")
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_a_file_that_was_edited_is_read_again(file: Path) -> None:
    assert width(load_model(f"{file}:model")) == 5
    file.write_text(NET.replace("Net(5)", "Net(6)"), encoding="utf-8")
    assert width(load_model(f"{file}:model")) == 6


def test_a_file_that_was_not_edited_runs_once(file: Path) -> None:
    first, second = load_model(f"{file}:model"), load_model(f"{file}:model")
    assert type(first) is type(second)
    assert first is not second


def test_a_file_may_import_torchvision(tmp_path: Path) -> None:
    path = write(
        tmp_path / "vision_user.py",
        "import torchvision\ndef model():\n    return torchvision.models.squeezenet1_1()\n",
    )
    assert isinstance(load_model(f"{path}:model"), nn.Module)


def test_torchvision_models_start_with_the_same_random_weights_each_time() -> None:
    state = torch.get_rng_state()
    first, second = load_model("torchvision:resnet18"), load_model("torchvision:ResNet18")
    assert torch.equal(first.fc.weight, second.fc.weight)
    assert torch.equal(state, torch.get_rng_state())


def test_torchvision_models_take_a_state_dict(tmp_path: Path) -> None:
    source = load_model("torchvision:squeezenet1_1")
    with torch.no_grad():
        source.classifier[1].bias.fill_(7)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    filled = load_model("torchvision:squeezenet1_1", tmp_path / "w.pth")
    assert torch.equal(filled.classifier[1].bias, torch.full((1000,), 7.0))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "best_prec1": 91.7, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    ],
    ids=["plain", "wrapped", "parallel", "wrapped and parallel", "parallel and compiled"],
)
def test_weights_fill_a_users_module(
    file: Path, tmp_path: Path, wrap: Callable[[dict[str, torch.Tensor]], dict[str, object]]
) -> None:
    torch.save(wrap({"fc.weight": torch.ones(5, 4), "fc.bias": torch.zeros(5)}), tmp_path / "w.pt")
    module = load_model(f"{file}:model", tmp_path / "w.pt")
    assert module(torch.ones(1, 4)).tolist() == [[4.0] * 5]


def test_a_module_of_its_own_named_module_keeps_its_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path / "wrapping.py",
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.module = nn.Linear(2, 2)\n        self.head = nn.Linear(2, 2)\n",
    )
    torch.save(load_model(f"{path}:Net").state_dict(), tmp_path / "w.pt")
    load_model(f"{path}:Net", tmp_path / "w.pt")


@pytest.mark.parametrize("spec", ["resnet18", ":model", "net.py:", "net.py:a b", ""])
def test_a_spec_without_a_callable_is_refused_with_the_forms(spec: str) -> None:
    with pytest.raises(ModelError, match=r"names no callable\. Write file\.py:callable, package\.module:call"):
        load_model(spec)


def test_a_missing_file_is_named_with_the_folder_that_paths_start_from() -> None:
    with pytest.raises(ModelError, match=r"^absent/net\.py: does not exist\. Relative paths are taken from /"):
        load_model("absent/net.py:model")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").mkdir()
    with pytest.raises(ModelError, match=r"net\.py: cannot be read \(Is a directory\)\. Give a Python file\."):
        load_model(f"{tmp_path / 'net.py'}:model")


def test_a_missing_module_is_told_with_where_it_was_looked_for() -> None:
    with pytest.raises(ModelError, match=r"^absent_pack\.nets: there is no module 'absent_pack'\. Run where"):
        load_model("absent_pack.nets:model")
    with pytest.raises(ModelError, match=r"there is no module 'torch\.absent'"):
        load_model("torch.absent:model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import os\n\nprint(undefined)\n",
            r"line 3: its import raised NameError: name 'undefined' is not def",
        ),
        (
            "import absent_library\n",
            r"line 1: its import raised ModuleNotFoundError: No module named 'absent_l",
        ),
        ("def model(:\n    pass\n", r"line 1: its import raised SyntaxError: invalid syntax"),
        ("import json\njson.loads('{')\n", r"line 2: its import raised JSONDecodeError: Expecting property"),
        (SCRIPT, r"line 4: its import raised SystemExit: done\. What a script does"),
    ],
)
def test_a_file_that_fails_on_import_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "failing.py", text)
    with pytest.raises(ModelError, match=rf"^{path}, {message}"):
        load_model(f"{path}:model")


def test_a_module_that_fails_on_import_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "spec_failing.py", "import os\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModelError, match=r"^spec_failing\.py, line 2: its import raised ZeroDivisionError: div"):
        load_model("spec_failing:model")


def test_an_error_of_this_package_passes_unchanged(tmp_path: Path) -> None:
    path = write(
        tmp_path / "user.py",
        "from autocompress.errors import MissingExtraError\ndef model():\n    raise MissingExtraError('as it is')\n",
    )
    with pytest.raises(MissingExtraError, match=r"^as it is$"):
        load_model(f"{path}:model")


def test_an_interrupt_passes(tmp_path: Path) -> None:
    path = write(tmp_path / "user.py", "def model():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_model(f"{path}:model")


def test_a_missing_callable_names_the_nearest(file: Path) -> None:
    with pytest.raises(ModelError, match=r"nets\.py: has no callable 'modle'\. Did you mean 'model'\?"):
        load_model(f"{file}:modle")


def test_a_missing_callable_without_a_near_one_names_what_the_file_defines(file: Path) -> None:
    with pytest.raises(ModelError, match=r"has no callable 'qqqq'\. Known: Net, model, needs, broken"):
        load_model(f"{file}:qqqq")
    path = write(file.parent / "bare.py", "x = 1\n")
    with pytest.raises(ModelError, match=r"has no callable 'model'\. It defines none\."):
        load_model(f"{path}:model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("settings", r"'settings' is a dict, not a callable\. Name a function that returns an nn\.Module"),
        ("needs", r"needs\(\) cannot be called without arguments \(missing a required argument: 'width'\)"),
        (
            "broken",
            r"nets\.py, line 10: broken\(\) raised TypeError: empty\(\).* Correct it there; --debug shows",
        ),
        ("state", r"state\(\) returned a state dict, not an nn\.Module\. Build the module, fill it"),
        ("nothing", r"nothing\(\) returned None, not an nn\.Module"),
        ("the_class", r"the_class\(\) returned the class Net, not an nn\.Module"),
    ],
)
def test_a_callable_that_gives_no_module_is_told_with_what_it_did(file: Path, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(f"{file}:{name}")


def test_an_unknown_model_of_torchvision_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"or detection model 'resnet81'\. Did you mean 'resnet1"):
        load_model("torchvision:resnet81")


def test_a_missing_torchvision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r'pip install "autocompress\[data\]"'):
        load_model("torchvision:resnet18")


def test_missing_weights_are_named(file: Path) -> None:
    with pytest.raises(ModelError, match=r"^absent\.pt: does not exist\. Give a state dict\. Save one with"):
        load_model(f"{file}:model", Path("absent.pt"))
    with pytest.raises(ModelError, match=r"is not a file\. Give a state dict"):
        load_model(f"{file}:model", file.parent)


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x80\x04\x95", b"PK\x03\x04 half an archive"])
def test_a_file_that_is_no_checkpoint_is_refused(file: Path, content: bytes) -> None:
    path = file.parent / "w.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.pt: is not a checkpoint of PyTorch, or is damaged\. Save one with"):
        load_model(f"{file}:model", path)


def test_a_cut_off_checkpoint_is_refused(file: Path) -> None:
    path = file.parent / "w.pt"
    torch.save({"fc.weight": torch.ones(5, 4000)}, path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ModelError, match=r"is not a checkpoint of PyTorch, or is damaged"):
        load_model(f"{file}:model", path)


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"state_dict": {}, "args": argparse.Namespace(a=1)}])
def test_python_objects_in_a_checkpoint_are_not_unpickled(file: Path, content: object) -> None:
    path = file.parent / "w.pt"
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"holds a Python object \(\S+\), which is not unpickled, as that could"):
        load_model(f"{file}:model", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), r"holds a tensor of shape"),
        ({"epoch": 3, "lr": 0.1}, r"holds a dict with the keys epoch, lr, not a state dict"),
    ],
)
def test_a_checkpoint_without_tensors_by_name_is_refused(file: Path, content: object, message: str) -> None:
    path = file.parent / "w.pt"
    torch.save(content, path)
    with pytest.raises(ModelError, match=message):
        load_model(f"{file}:model", path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"fc.weight": torch.ones(5, 4)},
            r"w\.pt: does not fit the model: 1 key of the model missing, the first is 'fc\.bias'\. Give the",
        ),
        (
            {
                "fc.weight": torch.ones(5, 4),
                "fc.bias": torch.ones(5),
                "head.a": torch.ones(1),
                "head.b": torch.ones(1),
            },
            r"does not fit the model: 2 keys the model does not have, the first is 'head\.a'",
        ),
        (
            {"linear.weight": torch.ones(5, 4)},
            r"2 keys of the model missing, the first is 'fc\.weight'; 1 key .* have, the first is 'linear\.weight'",
        ),
        (
            {"fc.weight": torch.ones(6, 4), "fc.bias": torch.ones(6)},
            r"does not fit the model: 'fc\.weight' is \(6, 4\), the model's is \(5, 4\)\. Give the weights",
        ),
    ],
)
def test_weights_that_do_not_fit_name_the_first_key(file: Path, state: dict[str, torch.Tensor], message: str) -> None:
    path = file.parent / "w.pt"
    torch.save(state, path)
    with pytest.raises(ModelError, match=message):
        load_model(f"{file}:model", path)
