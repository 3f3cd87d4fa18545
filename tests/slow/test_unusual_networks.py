"""Networks as people write them: each is exported, compared and planned, or ends in one true sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unusual_networks import UNUSUAL

from autocompress.api import explain
from autocompress.core.runtime import Example
from autocompress.data.copies import as_compressed
from autocompress.data.preparation import prepared
from autocompress.errors import ModelError
from autocompress.runtimes import OnnxRuntime

pytestmark = pytest.mark.slow

# what is said about those that cannot be compressed
REFUSED = {
    "packed sequences": "Packed sequences have no ONNX form",
    "packed sequences by length": "Packed sequences have no ONNX form",
    "lazy layers": "has no weights yet: '0.weight' gets its shape in the first call",
    "on the meta device": "has no weights: 'weight' is on the meta device",
    "complex output": "gives output 'output' in complex numbers",
    "sparse weights": "keeps 'weight' as a sparse tensor",
    "a branch on values": "decides by the values of a tensor",
    "a branch on the batch": "decides by the values of a tensor",
}
# what is said about those of which something else is compressed
SAID = {
    "nn.TransformerEncoder, padding masked": "computes padded places like all others",
    "a compiled layer": "are compressed as they were before",
    "nn.DataParallel": "is taken out of DataParallel",
    "weight_norm": "baked into plain weights",
    "spectral_norm": "baked into plain weights",
    "orthogonal": "baked into plain weights",
    "bfloat16": "its float32 copy is compressed",
    "a check of values": "one call of it was traced",
    "GPT-2": "are compressed as nn.Linear",
    "torchvision's SSD": "up to its boxes and logits",
}
PLANNED = ("nn.TransformerEncoder, padding masked", "nn.TransformerEncoder, bool mask", "a check of values", "GPT-2")


@pytest.mark.parametrize("name", UNUSUAL)
def test_it_is_exported_and_compared_or_ends_in_a_sentence(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, given = UNUSUAL[name]()
    inputs = {k: v.numpy() for k, v in given.items()} if isinstance(given, dict) else (given.numpy(),)
    example = Example(inputs)

    def exported() -> tuple[str, ...]:
        plain, first = prepared(module.eval())
        plain, second = as_compressed(plain, example)
        artifact = OnnxRuntime().export(plain, example, tmp_path / "model.onnx")
        assert artifact.fixed_batch is None
        return (*first, *second, *artifact.remarks)

    if name in REFUSED:
        with pytest.raises(ModelError) as caught:
            exported()
        assert REFUSED[name] in str(caught.value)
    else:
        said = exported()
        assert SAID[name] in " ".join(said) if name in SAID else not said


@pytest.mark.parametrize("name", PLANNED)
def test_it_is_planned(name: str) -> None:
    module, given = UNUSUAL[name]()
    planned = explain(module.eval(), "local", inputs=given, budgets={"size_mb": "0.3x"})
    assert SAID.get(name, "") in " ".join(planned.facts.preparation)
    assert planned.search_space.refusals
