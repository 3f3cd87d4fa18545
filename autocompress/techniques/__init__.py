"""The registered techniques, in the order in which the planner considers them."""

from __future__ import annotations

from autocompress.core.technique import Technique
from autocompress.techniques.block_dropping import BlockDropping
from autocompress.techniques.blockwise_weights import BlockwiseWeights
from autocompress.techniques.channel_pruning import ChannelPruning
from autocompress.techniques.distillation import Distillation
from autocompress.techniques.float16 import Float16
from autocompress.techniques.int8_dynamic import Int8Dynamic
from autocompress.techniques.int8_static import Int8Static

TECHNIQUES: tuple[type[Technique], ...] = (
    Float16,
    Int8Dynamic,
    Int8Static,
    BlockwiseWeights,
    BlockDropping,
    ChannelPruning,
    Distillation,
)

__all__ = [
    "TECHNIQUES",
    "BlockDropping",
    "BlockwiseWeights",
    "ChannelPruning",
    "Distillation",
    "Float16",
    "Int8Dynamic",
    "Int8Static",
]
