"""The techniques on the shelf, in the order in which the planner looks at them."""

from __future__ import annotations

from autocompress.core.technique import ArtifactTechnique, ModelTechnique, Technique
from autocompress.techniques.block_dropping import BlockDropping
from autocompress.techniques.channel_pruning import ChannelPruning
from autocompress.techniques.distillation import Distillation
from autocompress.techniques.float16 import Float16
from autocompress.techniques.int8_dynamic import Int8Dynamic
from autocompress.techniques.int8_static import Int8Static

TECHNIQUES: tuple[type[ArtifactTechnique], ...] = (Float16, Int8Dynamic, Int8Static)
MODEL_TECHNIQUES: tuple[type[ModelTechnique], ...] = (BlockDropping, ChannelPruning, Distillation)
SHELF: tuple[type[Technique], ...] = (*TECHNIQUES, *MODEL_TECHNIQUES)

__all__ = [
    "MODEL_TECHNIQUES",
    "SHELF",
    "TECHNIQUES",
    "BlockDropping",
    "ChannelPruning",
    "Distillation",
    "Float16",
    "Int8Dynamic",
    "Int8Static",
]
