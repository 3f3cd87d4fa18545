"""torchvision's one-stage detectors, up to the boxes before non-maximum suppression.

How many boxes suppression leaves depends on values, which no graph with outputs of one shape gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autocompress.core.output_kinds import OutputFact, OutputKind
from autocompress.errors import ModelError

PACKAGE = "torchvision.models.detection"
ONE_STAGE, TWO_STAGES = ("SSD", "RetinaNet", "FCOS"), ("GeneralizedRCNN",)


class BoxesAndLogits(nn.Module):
    """A one-stage detector of torchvision, from a batch of images to all of its boxes and class logits.

    Takes images `(n, 3, height, width)`, floats from 0 to 1 in the size that the detector works at (320 x 320 for
    ssdlite320, 300 x 300 for ssd300, sides in multiples of 32 for the others), and applies the detector's own
    normalization. Gives `boxes` `(n, anchors, 4)`, corners x1, y1, x2, y2 in pixels of these images, and `logits`
    `(n, anchors, classes)`: for SSD of a softmax whose class 0 is the background, for the others of a sigmoid per
    class. FCOS gives `centerness` `(n, anchors, 1)` too, logits of a sigmoid.

    Weights are the detector's own, under the same names. `known_outputs` says what kind of output each of these is.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head, self.anchor_generator = detector.backbone, detector.head, detector.anchor_generator
        self.box_coder, self.training = detector.box_coder, detector.training
        self.known_outputs = _known_outputs(detector)
        for name, values in (("mean", detector.transform.image_mean), ("std", detector.transform.image_std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Boxes and logits of all anchors."""
        from torchvision.models.detection.image_list import ImageList

        images = (images - self.mean) / self.std
        found = self.backbone(images)
        features = [found] if isinstance(found, torch.Tensor) else list(found.values())
        heads = self.head(features)
        size = (images.shape[2], images.shape[3])
        # anchors are the same for all images
        (anchors,) = self.anchor_generator(ImageList(images, [size]), features)
        boxes = self._decoded(heads["bbox_regression"], anchors)
        limits = torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype, device=boxes.device)
        outputs = {"logits": heads["cls_logits"], "boxes": torch.minimum(boxes.clamp(min=0), limits)}
        return outputs | ({"centerness": heads["bbox_ctrness"]} if "bbox_ctrness" in heads else {})

    def _decoded(self, codes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        anchors = anchors.expand(codes.shape[0], -1, -1)  # len() would fix the batch
        decode = getattr(self.box_coder, "decode_single", None)
        if decode is None:
            # the coder of FCOS
            return torch.as_tensor(self.box_coder.decode(codes, anchors))
        return torch.as_tensor(decode(codes.flatten(0, 1), anchors.flatten(0, 1)).reshape(codes.shape))


def _classes_of(module: nn.Module) -> set[str]:
    return {base.__name__ for base in type(module).__mro__ if base.__module__.startswith(PACKAGE)}


def _known_outputs(detector: nn.Module) -> dict[str, OutputFact]:
    """Kinds of outputs, which names and values do not tell: softmax and sigmoid both take logits."""
    each = OutputFact(OutputKind.MULTILABEL_LOGITS, None, "of this detector's sigmoid")
    classes = OutputFact(OutputKind.LOGITS, 2, "of this detector's softmax")
    return {
        "logits": classes if "SSD" in _classes_of(detector) else each,
        "boxes": OutputFact(OutputKind.BOXES, None, "of this detector"),
        "centerness": each,
    }


def before_suppression(module: nn.Module) -> nn.Module:
    """A one-stage detector of torchvision up to its boxes; any other module as it is.

    Raises:
        ModelError: when it is a detector that suppresses boxes in its middle.
    """
    kinds = _classes_of(module)
    if kinds.intersection(TWO_STAGES):
        raise ModelError(
            f"is a {type(module).__name__} of torchvision, which suppresses overlapping proposals in its middle and "
            "goes on with as many as are left: no graph with outputs of one shape does that.",
            where="model",
            hint="Give a one-stage detector: ssdlite320, ssd300, retinanet or fcos; or compress its backbone alone.",
        )
    return BoxesAndLogits(module) if kinds.intersection(ONE_STAGE) else module
