"""torchvision's detectors, up to the boxes before non-maximum suppression."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from unusual_networks import detector

from autocompress.core.output_kinds import OutputKind
from autocompress.core.runtime import Example
from autocompress.data.model_spec import load_model
from autocompress.data.module import call
from autocompress.data.output_recognition import with_kinds
from autocompress.data.preparation import prepared
from autocompress.data.vision import prepare_torchvision
from autocompress.errors import ModelError
from autocompress.runtimes import OnnxRuntime


def own_boxes(module: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and logits as the detector itself hands them to suppression."""
    seen: dict[str, Any] = {}

    def before(heads: dict[str, torch.Tensor], anchors: list[torch.Tensor], sizes: object) -> list[object]:
        seen.update(heads, anchors=anchors)
        return []

    module.postprocess_detections = before
    with torch.no_grad():
        module(list(images))
    pairs = zip(seen["bbox_regression"], seen["anchors"], strict=True)
    boxes = torch.stack([module.box_coder.decode_single(codes, anchors) for codes, anchors in pairs])
    return boxes.clamp(0, images.shape[-1]), seen["cls_logits"]


def test_boxes_and_logits_are_those_that_the_detector_suppresses(tmp_path: Path) -> None:
    module = detector().eval()
    compressed, said = prepared(module)
    assert "the SSD detector is compressed up to its boxes and logits" in said[0]
    assert list(compressed.state_dict()) == list(module.state_dict())
    images = torch.rand(2, 3, 64, 64)
    example = Example((images.numpy(),))
    artifact = OnnxRuntime().export(compressed, example, tmp_path / "model.onnx")
    assert artifact.fixed_batch is None
    assert [spec.name for spec in artifact.outputs] == ["logits", "boxes"]
    found = call(compressed, example)
    boxes, logits = own_boxes(module, images)
    torch.testing.assert_close(found["boxes"], boxes)
    torch.testing.assert_close(found["logits"], logits)


def retinanet() -> nn.Module:
    """torchvision's RetinaNet on one scale of features, 16 channels wide."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNet

    backbone: Any = nn.Sequential(nn.Conv2d(3, 16, 3, 8, 1), nn.ReLU())
    backbone.out_channels = 16
    return RetinaNet(backbone, 3, anchor_generator=AnchorGenerator(((16,),), ((0.5, 1.0, 2.0),)))


@pytest.mark.parametrize(("build", "kind"), [(detector, OutputKind.LOGITS), (retinanet, OutputKind.MULTILABEL_LOGITS)])
def test_logits_are_compared_as_the_detector_means_them(build: Any, kind: OutputKind) -> None:
    prepare_torchvision()
    module, _ = prepared(build().eval())
    example = Example((torch.rand(2, 3, 64, 64).numpy(),))
    kinds = with_kinds(example, module, None).kinds
    assert (kinds["logits"].kind, kinds["boxes"].kind) == (kind, OutputKind.BOXES)
    assert kinds["logits"].axis == (2 if kind is OutputKind.LOGITS else None)
    chosen = with_kinds(replace(example, outputs=("boxes",)), module, None, {"boxes": "values"}).kinds
    assert {name: fact.kind for name, fact in chosen.items()} == {"boxes": OutputKind.VALUES}


def test_a_detector_of_two_stages_is_refused() -> None:
    prepare_torchvision()
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

    module = GeneralizedRCNN(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity())
    with pytest.raises(ModelError, match="suppresses overlapping proposals in its middle"):
        prepared(module)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "outputs"),
    [
        ("ssdlite320_mobilenet_v3_large", 320, ["logits", "boxes"]),
        ("ssd300_vgg16", 300, ["logits", "boxes"]),
        ("retinanet_resnet50_fpn", 128, ["logits", "boxes"]),
        ("fcos_resnet50_fpn", 128, ["logits", "boxes", "centerness"]),
    ],
)
def test_one_stage_detectors_of_torchvision_are_exported(
    name: str, size: int, outputs: list[str], tmp_path: Path
) -> None:
    module, _ = prepared(load_model(f"torchvision:{name}").eval())
    example = Example((torch.rand(2, 3, size, size).numpy(),))
    artifact = OnnxRuntime().export(module, example, tmp_path / "model.onnx")
    assert [spec.name for spec in artifact.outputs] == outputs
    assert artifact.fixed_batch is None
