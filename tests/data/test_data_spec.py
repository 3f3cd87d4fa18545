import pickle
import struct
import sys
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autocompress.core.source import ArraySource
from autocompress.core.task import Task
from autocompress.data.augmentation import crop, crop_flip, flip
from autocompress.data.data_spec import PUBLISHED, load_data
from autocompress.errors import DataError, MissingExtraError

Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """The spec of an archive with these arrays, a good `x_test` and `y_test` unless given."""

    def saved(**arrays: Any) -> str:
        path = tmp_path / "data.npz"
        good = {"x_test": np.zeros((3, 4), np.float32), "y_test": np.arange(3)}
        chosen = {**({} if any(key.startswith("x_test.") for key in arrays) else good), **arrays}
        np.savez(path, **{key: value for key, value in chosen.items() if value is not None})
        return str(path)

    return saved


def arrays(source: ArraySource) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = source.read(range(len(source)))
    assert isinstance(inputs, tuple)
    return inputs[0], targets


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for prefix in ("train", "t10k"):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)


# digits


def test_digits_are_real_images_in_two_fixed_parts() -> None:
    task = load_data("digits")
    images, labels = arrays(task.train)
    assert len(task.train) + len(task.test) == 1797
    assert 950 < len(task.train) < 1050
    assert images.dtype == np.float32
    assert images.shape[1:] == (1, 8, 8)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert set(labels.tolist()) == set(arrays(task.test)[1].tolist()) == set(range(10))
    assert task.validation is not None
    assert task.validation.hash == load_data("digits").validation.hash


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r'^digits: needs scikit-learn.*"autocompress\[data\]"'):
        load_data("digits")


# published datasets


@pytest.mark.parametrize(("spec", "folder"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")])
def test_idx_files_become_normalised_images(tmp_path: Path, spec: str, folder: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    write_mnist(tmp_path / folder, images, np.arange(6))
    task = load_data(spec, data_dir=tmp_path)
    assert task.train.inputs[0].dtype == np.uint8
    values, labels = arrays(task.test)
    normalize = PUBLISHED[spec].normalize
    expected = (images[:, None] / 255 - normalize.mean[0]) / normalize.std[0]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert labels.tolist() == list(range(6))
    assert labels.dtype == np.int64


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Files in the published layout, with their own checksums: torchvision unpickles no others."""
    from autocompress.data.vision import import_torchvision

    kind = import_torchvision().datasets.CIFAR10
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    contents = {name: {"data": pixels, "labels": [3, 8]} for name, _ in kind.train_list + kind.test_list}
    contents[kind.meta["filename"]] = {"label_names": list("abcdefghij")}
    sums = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[name, sums[name]] for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
    return pixels.reshape(2, 3, 32, 32)


def test_cifar10_becomes_normalised_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar10(tmp_path, monkeypatch)
    task = load_data("cifar10", data_dir=tmp_path)
    assert (len(task.train), len(task.test)) == (10, 2)
    values, labels = arrays(task.test)
    mean = np.array([0.4914, 0.4822, 0.4465])[:, None, None]
    std = np.array([0.2470, 0.2435, 0.2616])[:, None, None]
    np.testing.assert_allclose(values, (pixels / 255 - mean) / std, atol=1e-5)
    assert labels.tolist() == [3, 8]


def test_files_that_are_not_the_published_ones_are_not_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cposix\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"cifar-10-batches-py: cifar10 is incomplete or damaged \(RuntimeError"):
        load_data("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("spec", sorted(PUBLISHED))
def test_absent_files_are_told_with_the_folder_and_the_option(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}: {spec} was not found .* Add --download, or name its f"):
        load_data(spec, data_dir=tmp_path)


def test_the_folder_is_data_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^data: mnist was not found \(there is no MNIST/raw in it\)"):
        load_data("mnist")


def test_damaged_files_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder, np.zeros((6, 28, 28)), np.arange(6))
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"not idx at all")
    with pytest.raises(DataError, match=r"MNIST/raw: mnist is incomplete or damaged .* Remove this folder and ad"):
        load_data("mnist", data_dir=tmp_path)


def test_files_of_different_length_are_told(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", np.zeros((6, 28, 28)), np.arange(5))
    with pytest.raises(DataError, match=r"mnist is incomplete or damaged .*6 inputs and 5 targets"):
        load_data("mnist", data_dir=tmp_path)


def test_a_download_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.data.vision import import_torchvision

    nowhere = "http://127.0.0.1:9/"  # the discard port, where nothing listens
    monkeypatch.setattr(import_torchvision().datasets.MNIST, "mirrors", [nowhere])
    with pytest.raises(DataError, match=r"mnist could not be downloaded \(RuntimeError.* Check the network, or"):
        load_data("mnist", data_dir=tmp_path, download=True)


def test_published_data_without_torchvision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r'pip install "autocompress\[data\]"'):
        load_data("mnist")


# npz


def test_float_arrays_go_to_the_model_as_they_are(save: Save) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    task = load_data(save(x_test=x, y_test=np.arange(4), x_train=x[:2], y_train=[1, 2], x_val=x[:1], y_val=[0]))
    values, labels = arrays(task.test)
    assert np.array_equal(values, x)
    assert labels.dtype == np.int64
    assert (len(task.test), len(task.train), len(task.val)) == (4, 2, 1)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.int8, np.bool_])
def test_other_integer_arrays_go_as_they_are(save: Save, dtype: type) -> None:
    values, _ = arrays(load_data(save(x_test=np.ones((3, 4, 4, 3), dtype))).test)
    assert values.dtype == dtype
    assert values.shape == (3, 4, 4, 3)


def test_bytes_of_two_dimensions_are_no_images(save: Save) -> None:
    values, _ = arrays(load_data(save(x_test=np.full((3, 7), 255, np.uint8))).test)
    assert values.dtype == np.uint8


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((3, 9, 8), (3, 1, 9, 8)),
        ((3, 9, 8, 1), (3, 1, 9, 8)),
        ((3, 9, 8, 3), (3, 3, 9, 8)),
        ((3, 9, 8, 4), (3, 4, 9, 8)),
        ((3, 3, 9, 8), (3, 3, 9, 8)),
    ],
)
def test_byte_images_get_channels_first_and_values_to_1(
    save: Save, shape: tuple[int, ...], becomes: tuple[int, ...]
) -> None:
    task = load_data(save(x_test=np.full(shape, 255, np.uint8)))
    values, _ = arrays(task.test)
    assert values.dtype == np.float32
    assert values.shape == becomes
    assert (values == 1).all()
    assert task.test.inputs[0].dtype == np.uint8


def test_byte_images_are_turned_and_not_only_reshaped(save: Save) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    values, _ = arrays(load_data(save(x_test=x)).test)
    np.testing.assert_allclose(values[1, 2, 3, 4] * 255, x[1, 3, 4, 2], rtol=1e-6)


def test_mean_and_std_normalise_byte_images_per_channel(save: Save) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    values, _ = arrays(load_data(save(x_test=x, mean=mean, std=std)).test)
    np.testing.assert_allclose(values, ((x / 255 - mean) / std).transpose(0, 3, 1, 2), atol=1e-6)


def test_one_mean_serves_all_channels(save: Save) -> None:
    values, _ = arrays(load_data(save(x_test=np.zeros((3, 9, 8, 3), np.uint8), mean=0.5)).test)
    assert (values == -0.5).all()


def test_several_inputs_go_by_name(save: Save) -> None:
    ids = np.ones((3, 6), np.int64)
    images = np.full((3, 8, 8), 255, np.uint8)
    named = {"x_test.input_ids": ids, "x_test.image": images, "y_test": np.arange(3)}
    inputs, _ = load_data(save(**named)).test.read([0, 2])
    assert inputs["input_ids"].dtype == np.int64
    assert inputs["image"].shape == (2, 1, 8, 8)
    assert inputs["image"].max() == 1.0


@pytest.mark.parametrize(
    "labels", [np.array([0.0, 2.0, 1.0]), np.array([[0], [2], [1]]), np.array([0, 2, 1], np.uint8)]
)
def test_labels_may_be_whole_floats_or_a_column(save: Save, labels: np.ndarray) -> None:
    _, read = arrays(load_data(save(y_test=labels)).test)
    assert read.dtype == np.int64
    assert read.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x_test": None}, r"data\.npz: has no x_test\. It holds y_test\. Save it with"),
        ({"y_test": None}, r"data\.npz: has no y_test\. It holds x_test\."),
        ({"x_tset": np.ones(3)}, r"has an unknown key 'x_tset'\. Did you mean 'x_test'\?"),
        ({"images": np.ones(3)}, r"has an unknown key 'images'\. Known: x_test, y_test, x_train"),
        ({"y_test.a": np.ones(3)}, r"has an unknown key 'y_test\.a'\. Did you mean 'y_test'\?"),
        ({"x_train": np.ones((2, 4))}, r"has x_train and no y_train\. Give both or none\."),
        ({"y_val": np.ones(2)}, r"has y_val and no x_val\. Give both or none\."),
        ({"x_test": np.empty((0, 4)), "y_test": np.empty(0)}, r"test: is empty, its shape is \(0,( 4)?\)"),
        ({"y_test": np.arange(4)}, r"x_test holds 3 items and y_test 4\. Each item needs one label"),
        (
            {"x_test": np.array([[1], [np.nan], [np.inf]])},
            r"x_test: holds values that are not finite \(NaN or infinity\), first in item 1",
        ),
        ({"x_test": np.array(1.0)}, r"x_test: is a single number"),
        (
            {"y_test": np.array([0, 0.5, 1])},
            r"labels are not whole numbers \(item 1 is 0\.5\)\. For other targets",
        ),
        ({"y_test": np.array([0, 1, np.nan])}, r"y_test: labels are not whole numbers \(item 2 is nan\)"),
        (
            {"y_test": np.array([0, -1, 1])},
            r"y_test: labels are negative \(item 1 is -1\)\. Number the classes",
        ),
        ({"y_test": np.eye(3)}, r"y_test: labels have shape \(3, 3\), not \(n,\)"),
        ({"y_test": np.array(["a", "b", "c"])}, r"y_test: holds <U1, not numbers"),
        ({"x_test": np.array([{}, [], 1], object)}, r"x_test: holds Python objects, which are not unpickled"),
        (
            {"x_test": np.ones((3, 8, 8, 5), np.uint8)},
            r"x_test: has shape \(3, 8, 8, 5\); uint8 arrays of 4 dim",
        ),
        ({"mean": np.zeros(3)}, r"has mean, which apply to uint8 images, and holds none"),
        (
            {"x_test": np.ones((3, 8, 8), np.uint8), "mean": np.zeros(3)},
            r"mean: has shape \(3,\), the images have 1 channels",
        ),
        (
            {"x_test": np.ones((3, 8, 8), np.uint8), "mean": 127.5},
            r"mean: is 127\.5, not between 0 and 1\. Give",
        ),
        ({"x_test": np.ones((3, 8, 8), np.uint8), "std": 0.0}, r"std: is 0, not between 0 and 1"),
        (
            {"x_test.a": np.ones(3), "y_test": np.ones(3), "x_train.b": np.ones(3), "y_train": np.ones(3)},
            r"x_train has the inputs b, x_test a\. Give every part the same inputs",
        ),
        (
            {"x_test.a": np.ones(3), "x_test": np.ones(3), "y_test": np.ones(3)},
            r"has both x_test and x_test\.a\. Name every input",
        ),
        (
            {"x_train": np.ones((3, 4, 4), np.float32), "y_train": np.ones(3)},
            r"x_train holds float32 \(3, 4, 4\), x_test float32 \(3, 4\)",
        ),
    ],
)
def test_an_archive_that_cannot_be_used_is_told_with_the_key(save: Save, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(save(**given))


@pytest.mark.parametrize("content", [b"", b"text, not an archive", b"PK\x03\x04 half of one", pickle.dumps([1])])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: is not an npz file, or is damaged\. Save it with numpy\.savez"):
        load_data(str(tmp_path / "d.npz"))


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.ones(3))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"holds a single array; it is an npy file"):
        load_data(str(tmp_path / "d.npz"))


def test_an_archive_without_arrays_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"has no x_test\. It holds nothing\."):
        load_data(str(tmp_path / "d.npz"))


def test_a_damaged_array_in_an_archive_is_told(save: Save) -> None:
    spec = save(x_test=np.full((3, 400), 7, np.float32))
    content = bytearray(Path(spec).read_bytes())
    content[1000] ^= 255
    Path(spec).write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz: x_test: is damaged\. Save the file again"):
        load_data(spec)


def test_a_missing_archive_is_named() -> None:
    with pytest.raises(DataError, match=r"^absent\.npz: does not exist\. Relative paths are taken from /"):
        load_data("absent.npz")


# callables and the spec itself

TASKS = """
import numpy as np
from autocompress.core.task import Task

def data():
    return Task(test=(np.zeros((4, 3, 8, 8), np.float32), np.arange(4)), augment=abs)

def pair():
    return np.zeros((4, 3)), np.arange(4)

def words():
    return Task(test=({"ids": np.zeros((4, 6), np.int64)}, np.arange(4)))

def broken():
    return Task(test=(np.zeros((4, 3)), np.arange(5)))

def crashes():
    return {}["absent"]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    path = tmp_path / "tasks.py"
    path.write_text(TASKS, encoding="utf-8")
    return str(path)


def test_a_callable_gives_the_task(tasks: str) -> None:
    task = load_data(f"{tasks}:data")
    assert isinstance(task, Task)
    assert len(task.test) == 4
    assert task.augment is abs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pair", r"tasks\.py: pair\(\) returned a tuple, not a Task\. Return a Task from it"),
        ("dta", r"tasks\.py: has no callable 'dta'\. Did you mean 'data'\?"),
        ("broken", r"^data: test: has 4 inputs and 5 targets"),
        ("crashes", r"tasks\.py, line 18: crashes\(\) raised KeyError: 'absent'"),
    ],
)
def test_a_callable_that_gives_no_task_is_told(tasks: str, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"{tasks}:{name}")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"^absent\.py: does not exist"):
        load_data("absent.py:data")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digist", r"^'digist': names no data\. Did you mean 'digits'\?"),
        ("fashion_mnist", r"Did you mean 'fashion-mnist'\?"),
        (
            "",
            r"^'': names no data\. Give digits, cifar10, mnist, fashion-mnist, PATH\.npz or file\.py:callable",
        ),
    ],
)
def test_a_spec_that_names_nothing_is_refused_with_the_nearest(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(spec)


# augmentation


def test_flip_mirrors_about_half_of_the_images_whole() -> None:
    torch.manual_seed(0)
    images = torch.rand(400, 3, 8, 8)
    changed = flip(images)
    mirrored = (changed == images.flip(3)).flatten(1).all(1)
    kept = (changed == images).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 150 < int(mirrored.sum()) < 250


def test_crop_moves_each_image_by_up_to_an_eighth_and_fills_with_zeros() -> None:
    torch.manual_seed(0)
    images = torch.rand(500, 2, 32, 16) + 1
    moved = crop(images)
    assert moved.shape == images.shape
    seen = set()
    for image, result in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(image, (2, 2, 4, 4))
        found = [
            (top, left)
            for top in range(9)
            for left in range(5)
            if torch.equal(padded[:, top : top + 32, left : left + 16], result)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert {top for top, _ in seen} == set(range(9))
    assert {left for _, left in seen} == set(range(5))


def test_augmentation_follows_the_seed_and_leaves_its_input() -> None:
    images = torch.rand(20, 1, 4, 4)
    before = images.clone()
    torch.manual_seed(1)
    first = crop_flip(images)
    torch.manual_seed(1)
    assert torch.equal(first, crop_flip(images))
    assert torch.equal(images, before)


def test_the_chosen_augmentation_is_the_tasks(tasks: str, save: Save) -> None:
    assert load_data("digits").augment is None
    assert load_data("digits", augment="crop-flip").augment is crop_flip
    assert load_data(f"{tasks}:data", augment="flip").augment is flip
    assert load_data(save(x_test=np.ones((3, 8, 8), np.uint8)), augment="flip").augment is flip


@pytest.mark.parametrize("x", [np.ones((3, 4), np.float32), np.ones((3, 2, 4, 4), np.int64)])
def test_augmentation_of_what_is_no_image_is_refused(save: Save, x: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"augment: 'flip' is for batches of images \(n, c, h, w\); .* holds \w+ \(n"):
        load_data(save(x_test=x), augment="flip")


def test_augmentation_of_named_inputs_is_refused(tasks: str) -> None:
    with pytest.raises(DataError, match=r"'flip' is for batches of images .* holds int64 \(n, 6\)\. Leave it out"):
        load_data(f"{tasks}:words", augment="flip")


def test_an_unknown_augmentation_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"augment: there is no 'flipp'\. Did you mean 'flip'\?"):
        load_data("digits", augment="flipp")


def test_the_example_trains_once_and_then_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from autocompress.data.model_spec import load_model

    example = Path(__file__).parents[2] / "examples" / "digits.py"
    monkeypatch.chdir(tmp_path)
    trained = load_model(f"{example}:model")
    said = capsys.readouterr().out
    assert "Trained runs/digits_cnn.pt in" in said
    assert said.startswith("Training a small CNN")
    assert said.count("\n") == 2
    again = load_model(f"{example}:model")
    assert capsys.readouterr().out == ""
    assert [path.name for path in Path("runs").iterdir()] == ["digits_cnn.pt"]
    images, labels = arrays(load_data("digits").test)
    with torch.no_grad():
        answers = trained(torch.from_numpy(images))
        assert torch.equal(answers, again(torch.from_numpy(images)))
    assert (answers.argmax(1).numpy() == labels).mean() > 0.97
