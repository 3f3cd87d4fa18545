"""The registered techniques, in the order in which the planner considers them."""

from __future__ import annotations

from autocompress.core.technique import Technique
from autocompress.techniques.bias_correction import BiasCorrection
from autocompress.techniques.block_dropping import BlockDropping
from autocompress.techniques.blockwise_weights import BlockwiseWeights
from autocompress.techniques.channel_pruning import ChannelPruning
from autocompress.techniques.distillation import Distillation
from autocompress.techniques.equalization import Equalization
from autocompress.techniques.float16 import Float16
from autocompress.techniques.int8_dynamic import Int8Dynamic
from autocompress.techniques.int8_static import Int8Static
from autocompress.techniques.learned_rounding import LearnedRounding
from autocompress.techniques.palette_training import PaletteTraining
from autocompress.techniques.palettes import Palettes
from autocompress.techniques.quantization_aware_training import QuantizationAwareTraining

TECHNIQUES: tuple[type[Technique], ...] = (
    Float16,
    Int8Dynamic,
    Int8Static,
    BlockwiseWeights,
    Equalization,
    BiasCorrection,
    LearnedRounding,
    QuantizationAwareTraining,
    Palettes,
    PaletteTraining,
    BlockDropping,
    ChannelPruning,
    Distillation,
)

__all__ = [
    "TECHNIQUES",
    "BiasCorrection",
    "BlockDropping",
    "BlockwiseWeights",
    "ChannelPruning",
    "Distillation",
    "Equalization",
    "Float16",
    "Int8Dynamic",
    "Int8Static",
    "LearnedRounding",
    "PaletteTraining",
    "Palettes",
    "QuantizationAwareTraining",
]
