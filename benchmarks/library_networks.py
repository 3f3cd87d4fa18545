"""Networks of transformers, timm and torchvision from small configurations, with random weights and example inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.core.dynamic_axes import Axis
from autocompress.core.source import Array
from autocompress.data.vision import import_torchvision

VOCABULARY, TOKENS, FRAMES = 200, 16, 64


@dataclass(frozen=True)
class LibraryNetwork:
    """A network with inputs that go by name, and the sizes it is tried at.

    `axes` are those that are asked to be free; without any the policy decides. Each of `sizes` gives the axes that are
    moved together.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Array]]
    sizes: tuple[Mapping[Axis, int], ...]
    axes: tuple[Axis, ...] = ()
    outputs: tuple[str, ...] = ("logits",)


def _tokens(*names: str, count: int = TOKENS) -> Callable[[], dict[str, Array]]:
    def inputs() -> dict[str, Array]:
        ids = np.random.default_rng(0).integers(5, VOCABULARY - 5, (2, count))
        return {name: np.ones_like(ids) if "mask" in name else ids for name in names}

    return inputs


def _images(name: str, size: int) -> Callable[[], dict[str, Array]]:
    return lambda: {name: np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)}


def _lengths(*names: str, lengths: tuple[int, ...] = (TOKENS, 7, 29)) -> tuple[Mapping[Axis, int], ...]:
    return tuple({(name, 1): length for name in names} for length in lengths)


def _squares(name: str, *sizes: int) -> tuple[Mapping[Axis, int], ...]:
    return tuple({(name, 2): size, (name, 3): size} for size in sizes)


def _image_axes(name: str) -> tuple[Axis, ...]:
    return ((name, 2), (name, 3))


def _hf(name: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        # it imports torchvision
        import_torchvision()
        import transformers

        torch.manual_seed(0)
        made: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**settings))
        return made.eval()

    return build


def _detr() -> nn.Module:
    import_torchvision()
    # its configurations take more than their types tell
    transformers: Any = importlib.import_module("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    torch.manual_seed(0)
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10,
    )  # fmt: skip
    made: nn.Module = transformers.DetrForObjectDetection(config)
    return made.eval()


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import_torchvision()
        import timm

        torch.manual_seed(0)
        made: nn.Module = timm.create_model(name, pretrained=False)
        return made.eval()

    return build


def _torchvision(group: str, name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        models = getattr(import_torchvision().models, group) if group else import_torchvision().models
        made: nn.Module = getattr(models, name)(weights=None, weights_backbone=None)
        return made.eval()

    return build


ENCODER = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 512, "max_position_embeddings": 80,
}  # fmt: skip


def _whisper_inputs() -> dict[str, Array]:
    features = np.random.default_rng(0).standard_normal((2, 80, 2 * FRAMES)).astype(np.float32)
    return {"input_features": features, **_tokens("decoder_input_ids", count=8)()}


def _of_timm(name: str, size: int, *others: int) -> LibraryNetwork:
    return LibraryNetwork(
        _timm(name),
        _images("x", size),
        _squares("x", size, *others),
        _image_axes("x"),
        outputs=(),
    )


BOTH = ("input_ids", "attention_mask")
T5 = {"decoder_start_token_id": 0, "use_cache": False, "d_model": 128, "d_kv": 32, "d_ff": 512, "num_heads": 4}
NETWORKS: dict[str, LibraryNetwork] = {
    "BERT": LibraryNetwork(
        _hf("BertForSequenceClassification", "BertConfig", **ENCODER), _tokens(*BOTH), _lengths(*BOTH)
    ),
    "DistilBERT": LibraryNetwork(
        _hf(
            "DistilBertForSequenceClassification", "DistilBertConfig", vocab_size=VOCABULARY, dim=128, n_layers=2,
            n_heads=4, hidden_dim=512, max_position_embeddings=80,
        ),
        _tokens(*BOTH), _lengths(*BOTH),
    ),
    "RoBERTa": LibraryNetwork(
        _hf("RobertaForSequenceClassification", "RobertaConfig", **ENCODER), _tokens(*BOTH), _lengths(*BOTH)
    ),
    "Llama": LibraryNetwork(
        _hf("LlamaForCausalLM", "LlamaConfig", **ENCODER, num_key_value_heads=2, use_cache=False),
        _tokens(*BOTH), _lengths(*BOTH),
    ),
    "T5": LibraryNetwork(
        _hf("T5ForConditionalGeneration", "T5Config", vocab_size=VOCABULARY, num_layers=2, **T5),
        lambda: {**_tokens(*BOTH)(), **_tokens("decoder_input_ids", count=8)()},
        tuple({**of, ("decoder_input_ids", 1): n} for of, n in zip(_lengths(*BOTH), (8, 5, 13), strict=True)),
    ),
    "Whisper tiny": LibraryNetwork(
        _hf(
            "WhisperForConditionalGeneration", "WhisperConfig", vocab_size=VOCABULARY, d_model=128, encoder_layers=2,
            decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=512,
            decoder_ffn_dim=512, max_source_positions=FRAMES, use_cache=False, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, decoder_start_token_id=1,
        ),
        _whisper_inputs, _lengths("decoder_input_ids", lengths=(8, 5, 13)),
    ),
    "ViT": LibraryNetwork(
        _hf(
            "ViTForImageClassification", "ViTConfig", hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=512, image_size=32, patch_size=8,
        ),
        _images("pixel_values", 32), _squares("pixel_values", 32, 48, 64), _image_axes("pixel_values"),
    ),
    "DETR": LibraryNetwork(
        _detr, _images("pixel_values", 96), _squares("pixel_values", 96, 64, 128), _image_axes("pixel_values"),
        ("logits", "pred_boxes"),
    ),
    "timm mobilenetv4_conv_small": _of_timm("mobilenetv4_conv_small", 96, 64, 128),
    "timm fastvit_t8": _of_timm("fastvit_t8", 96, 64, 128),
    "timm repvgg_a0": _of_timm("repvgg_a0", 96, 64, 128),
    "timm efficientformerv2_s0": _of_timm("efficientformerv2_s0", 224, 192, 256),
    "timm convnextv2_atto": _of_timm("convnextv2_atto", 96, 64, 128),
    "torchvision lraspp_mobilenet_v3_large": LibraryNetwork(
        _torchvision("segmentation", "lraspp_mobilenet_v3_large"),
        _images("input", 96), _squares("input", 96, 64, 128), _image_axes("input"), ("out",),
    ),
    "torchvision ssdlite320_mobilenet_v3_large": LibraryNetwork(
        _torchvision("detection", "ssdlite320_mobilenet_v3_large"),
        _images("images", 320), _squares("images", 320), (), (),
    ),
}  # fmt: skip
