"""What the end-to-end tests share: a folder of a user with trained models, data and profiles, and finished runs."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.analysis import layer_probes as probing
from autocompress.analysis import model_probes as whole_probing
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile, load_profile
from autocompress.data.data_spec import load_data
from autocompress.devices import alternation
from autocompress.runtimes import OnnxRuntime
from autocompress.structure import measuring
from autocompress.testing.networks import Exports, labelled
from e2e import blocks
from e2e.command import Done, command

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "digits.py"
# generous, because machines are noisy: int8 is measured at 0.26x and 0.4x here
FULL = """\
name: full
protocol: {max_seconds: 1.2, precision: 0.2, items: all}
budgets: {size_mb: 0.35x, latency_ms: 4x, max_accuracy_drop_pp: 3}
"""
# no budget on time: nothing depends on how fast this machine is
SMALL = """\
name: small
protocol: {max_seconds: 0.3, precision: 0.5, items: all}
budgets: {size_mb: 0.5x, max_accuracy_drop_pp: 5}
"""
SIZE_ALONE = """\
name: size-alone
protocol: {max_seconds: 0.3, precision: 0.5, items: all}
budgets: {size_mb: 0.5x}
"""
GATE = """\
name: brief
protocol: {max_seconds: 0.5, precision: 0.2}
budgets: {size_mb: 1, latency_ms: 1000, min_accuracy: 0}
"""


@dataclass(frozen=True)
class Run:
    """A finished run: what the command left, and its folder."""

    done: Done
    folder: Path

    @property
    def baseline(self) -> Path:
        """The file of the model untouched."""
        return self.folder / "checkpoints" / Plan().hash / "model.onnx"


@pytest.fixture(scope="session", autouse=True)
def _brief_measurements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shorter warm-ups and probes, kept for all runs of these tests: dozens of runs in two minutes, each of them
    measured all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(alternation, "WARM_UP_SECONDS", 0.02)
        patch.setattr(probing, "PROBE_SECONDS", 0.05)
        patch.setattr(whole_probing, "PROBE_SECONDS", 0.1)
        patch.setattr(measuring, "MEASURE_SECONDS", 1.0)
        yield


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user, in which commands are started."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("models.py", "tasks.py"):
        shutil.copyfile(HERE / name, folder / name)
    for name, text in (("full", FULL), ("small", SMALL), ("size-alone", SIZE_ALONE)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    images, labels = digits("train")
    torch.save(fit(user_file(folder).Rows(), images, labels, epochs=8).state_dict(), folder / "rows.pt")
    images, labels = digits("test")
    np.savez(folder / "digits.npz", x_test=images, y_test=labels)
    return folder


def digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the built-in data set's `train` or `test`."""
    source = getattr(load_data("digits"), part)
    (images,), labels = source.read(range(len(source)))
    return images, labels


def user_file(folder: Path) -> ModuleType:
    """models.py of that folder."""
    spec = importlib.util.spec_from_file_location("e2e_user_models", folder / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: on a busy machine two that wait for each other train ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(module: nn.Module, inputs: np.ndarray, labels: np.ndarray, *, epochs: int) -> nn.Module:
    """The module, trained a little, always the same way."""
    features, wanted = torch.from_numpy(inputs), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(0)
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        optimizer = torch.optim.Adam(module.train().parameters(), lr=3e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(features)).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(features[batch]), wanted[batch]).backward()
                optimizer.step()
    module.zero_grad()
    return module.eval()


@pytest.fixture(scope="session")
def rows(work: Path) -> Callable[[], nn.Module]:
    """A trained network for digits, new at every call."""
    module: Callable[[], nn.Module] = user_file(work).rows
    return module


@pytest.fixture(scope="session")
def small(work: Path) -> Profile:
    """This machine, measured briefly; half the size and five points."""
    return load_profile(work / "small.yaml")


@pytest.fixture(scope="session")
def digits_run(work: Path) -> Run:
    """`run` on the example's network, after a training shorter than the example's own."""
    spec = importlib.util.spec_from_file_location("e2e_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.EPOCHS = 2
    with chdir(work), one_thread():
        example.model()
    done = command(
        "run", "--model", f"{EXAMPLE}:model", "--data", "digits", "--profile", "full.yaml", "--out", "runs/digits",
        folder=work,
    )  # fmt: skip
    return Run(done, work / "runs" / "digits")


@pytest.fixture(scope="session")
def rows_run(work: Path) -> Run:
    """`run` on the small network."""
    done = command(
        "run", "--model", "models.py:rows", "--data", "digits.npz", "--profile", "small.yaml", "--out", "runs/rows",
        folder=work,
    )  # fmt: skip
    return Run(done, work / "runs" / "rows")


@pytest.fixture(scope="session")
def block_user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `residual`."""
    return residual(tmp_path_factory.mktemp("blocks"))


def residual(folder: Path) -> Path:
    """The folder of a user with a trained residual network that int8 alone leaves too large."""
    shutil.copyfile(HERE / "blocks.py", folder / "blocks.py")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    images, labels = digits("train")
    torch.save(fit(blocks.network(), images, labels, epochs=6).state_dict(), folder / "blocks.pt")
    return folder


@pytest.fixture(autouse=True, scope="session")
def sigint_is_not_ignored() -> None:
    """Tests that run in the background of a shell start with SIGINT ignored, and what they start would too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shop(tmp_path: Path, exports: Exports) -> Path:
    """A folder with a file that passes the gate, its baseline, data and profile."""
    artifact = exports(OnnxRuntime(), "cnn").artifact
    for name in ("model.onnx", "baseline.onnx"):
        shutil.copy(artifact.path, tmp_path / name)
    (images,), labels = labelled("cnn", 60)
    np.savez(tmp_path / "data.npz", x_test=images, y_test=labels)
    (tmp_path / "profile.yaml").write_text(GATE, encoding="utf-8")
    return tmp_path
