"""The simulation in torch beside onnxruntime: ResNet-20 on CIFAR-10, and what the libraries' networks export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.data_sources import as_source
from autocompress.core.plan import Setting
from autocompress.core.runtime import Example
from autocompress.core.search_space import first_options
from autocompress.core.source import Array, Inputs, whole
from autocompress.core.technique import Context
from autocompress.data.vision import prepare_torchvision
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.graph_module import GraphModule
from autocompress.techniques import Int8Static, LearnedRounding

STATIC: dict[str, Setting] = first_options(Int8Static.choices)
ITEMS, BATCH = 2000, 100

pytestmark = pytest.mark.slow


def answers(artifact: Artifact, image: Array) -> tuple[Array, Array]:
    """The outputs of onnxruntime and of the simulation."""
    module, session = GraphModule(load_model(artifact.path)), OnnxRuntime().load(artifact, 1, {})
    name, wanted, found = artifact.inputs[0].name, [], []
    for start in range(0, len(image), BATCH):
        part = image[start : start + BATCH]
        wanted.append(session.run({name: part})[0])
        with torch.no_grad():
            found.append(next(iter(module(**{name: torch.from_numpy(part)}).values())).numpy())
    return np.concatenate(wanted), np.concatenate(found)


def test_resnet20_gives_the_answers_of_the_runtime_and_four_bits_lose_little_once_learned(
    networks: ModuleType, tmp_path: Path
) -> None:
    task = networks.cifar10()
    image, labels = task.test.read(range(ITEMS))
    example = Example((task.test.read(range(2))[0][0],))
    unquantized = OnnxRuntime().export(networks.cifar_resnet(20), example, tmp_path / "float.onnx", named=True)
    context = Context(task, example, task.calibration, tmp_path, unquantized=unquantized)
    quantized = Int8Static().apply(unquantized, STATIC, context)
    learned = LearnedRounding().apply(quantized, {"bits": 4, "steps": 40, "items": 256}, context)
    right = {}
    for name, artifact in (("float", unquantized), ("int8", quantized), ("four bits", learned)):
        wanted, found = answers(artifact, image[0])
        assert (wanted.argmax(1) == found.argmax(1)).mean() >= 0.995
        right[name] = (wanted.argmax(1) == labels).mean()
    assert right["float"] - right["four bits"] < 0.015


def _library_network(name: str) -> tuple[nn.Module, Inputs]:
    prepare_torchvision()
    import torchvision

    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval(), (
        np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32),
    )


def _language_model(name: str) -> tuple[nn.Module, Inputs]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 200, (8, 12))
    small = {"vocab_size": 200}
    if name == "bert":
        config = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **small
        )
        module = transformers.BertForSequenceClassification(config)
    else:
        config = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=2, n_positions=64, use_cache=False, bos_token_id=0, eos_token_id=0, **small
        )
        module = transformers.GPT2LMHeadModel(config)
    return module.eval(), {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}


CASES: dict[str, Callable[[str], tuple[nn.Module, Inputs]]] = {
    **dict.fromkeys(
        ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "squeezenet1_1", "densenet121", "shufflenet_v2_x1_0"),
        _library_network,
    ),
    "bert": _language_model,
    "gpt2": _language_model,
}


@pytest.mark.parametrize("name", CASES)
def test_what_libraries_export_is_covered(name: str, tmp_path: Path) -> None:
    module, inputs = CASES[name](name)
    unquantized = OnnxRuntime().export(module, Example(inputs), tmp_path / "float.onnx")
    source = as_source((inputs, np.zeros(8, dtype=np.int64)))
    assert source is not None
    quantized = Int8Static().apply(unquantized, STATIC, Context(None, None, whole("train", source), tmp_path))
    feed = dict(inputs) if isinstance(inputs, dict) else {unquantized.inputs[0].name: inputs[0]}
    # random weights: most classes are as good as each other, so numbers are compared and not answers
    for artifact, most in ((unquantized, 1e-4), (quantized, 0.06)):
        wanted = OnnxRuntime().load(artifact, 1, {}).run(feed)[0]
        model = load_model(artifact.path)
        simulated = GraphModule(model)
        with torch.no_grad():
            found = next(
                iter(simulated(**{name: torch.from_numpy(one) for name, one in feed.items()}).values())
            ).numpy()
        assert np.linalg.norm(found - wanted) < most * np.linalg.norm(wanted)
        assert simulated.write_to(model).SerializeToString(deterministic=True) == model.SerializeToString(
            deterministic=True
        )
