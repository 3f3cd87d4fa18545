"""Models of libraries: the same weights each time, nothing downloaded, nothing unpickled, no code of a folder run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.data.model_spec import load_model
from autocompress.data.vision import prepare_torchvision
from autocompress.errors import MissingExtraError, ModelError

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small classifier with weights."""
    prepare_torchvision()
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("hf") / "bert"
    BertForSequenceClassification(BertConfig(**TINY, num_labels=3)).save_pretrained(folder)
    return folder


def with_config(folder: Path, **changed: Any) -> Path:
    """A folder with a configuration alone."""
    folder.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], **TINY, **changed}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_local_folder_gives_its_class_with_its_weights(bert: Path) -> None:
    module = load_model(f"hf:{bert}")
    assert type(module).__name__ == "BertForSequenceClassification"
    assert not module.training
    assert module.classifier.weight.shape == (3, 16)
    from safetensors.torch import load_file

    stored = load_file(bert / "model.safetensors")
    torch.testing.assert_close(module.classifier.weight.detach(), stored["classifier.weight"])


def test_a_configuration_alone_gives_the_same_random_weights_each_time(tmp_path: Path) -> None:
    folder = with_config(tmp_path / "bare")
    first, second = (load_model(f"hf:{folder}").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architectures": ["NoSuchModel"]}, "names the class 'NoSuchModel', which transformers"),
        ({"architectures": ["AutoConfig"]}, "names the class 'AutoConfig', which transformers"),
        ({"architectures": []}, "names no class under `architectures`"),
        ({"auto_map": {"AutoModel": "own.Model"}}, "brings code of its own"),
        ({"hidden_size": "wide"}, "BertForSequenceClassification cannot be built"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = with_config(tmp_path / "bad", **changed)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(f"hf:{folder}")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_folder_of_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder"):
        load_model(f"hf:{tmp_path / 'missing'}")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ModelError, match="is no configuration"):
        load_model(f"hf:{tmp_path}")


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    folder = with_config(tmp_path / "pickled")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ModelError, match="pickled weights"):
        load_model(f"hf:{folder}")


def test_models_of_timm_start_with_the_same_random_weights_each_time() -> None:
    first, second = (load_model("timm:mobilenetv4_conv_small").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_unknown_model_of_timm_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"has no model 'mobilenetv4_conv_smal'.*mobilenetv4_conv_small"):
        load_model("timm:mobilenetv4_conv_smal")


def test_segmentation_models_of_torchvision_need_no_download() -> None:
    module = load_model("torchvision:lraspp_mobilenet_v3_large")
    assert set(module.eval()(torch.zeros(1, 3, 64, 64))) == {"out"}


@pytest.mark.parametrize(("library", "spec"), [("timm", "timm:resnet18"), ("transformers", "hf:{}")])
def test_a_missing_library_names_the_extra(
    library: str, spec: str, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match="is not installed") as caught:
        load_model(spec.format(bert))
    assert f"autocompress[{library}]" in (caught.value.hint or "")
