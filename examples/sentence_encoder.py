"""A sentence encoder: sentences of different lengths, padded by the loader, to embeddings of length one.

Needs transformers: pip install "autocompress[transformers]"

python examples/sentence_encoder.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from autocompress import Result, Task, autocompress
from autocompress.data.vision import prepare_torchvision

# transformers imports torchvision, which may be built for another torch than the one that is installed
prepare_torchvision()
try:
    from transformers import BertConfig, BertModel
except ImportError:
    sys.exit('This example needs transformers: pip install "autocompress[transformers]"')

TOPICS, WORDS_OF_A_TOPIC, COMMON = 12, 30, 200
WIDTH = 96


class Encoder(nn.Module):
    """The mean of the last layer's tokens, scaled to length one."""

    def __init__(self) -> None:
        super().__init__()
        words = 1 + COMMON + TOPICS * WORDS_OF_A_TOPIC
        sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 4 * WIDTH}
        config = BertConfig(vocab_size=words, max_position_embeddings=64, **sizes)
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embeddings `(n, width)` of sentences of at most 64 tokens, `(n, length)`."""
        tokens = self.bert(input_ids, attention_mask).last_hidden_state
        shown = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return nn.functional.normalize((tokens * shown).sum(1) / shown.sum(1), dim=1)


def centres() -> np.ndarray:
    """Where the embeddings of each topic belong: directions at right angles."""
    return np.eye(TOPICS, WIDTH, dtype=np.float32)


def sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences of 4 to 24 words, a third of them from the sentence's topic, the others used by all topics."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        topic, length = int(random.integers(TOPICS)), int(random.integers(4, 25))
        own = 1 + COMMON + topic * WORDS_OF_A_TOPIC + random.integers(0, WORDS_OF_A_TOPIC, length)
        words = np.where(random.random(length) < 1 / 3, own, random.integers(1, COMMON, length))
        rows.append({"input_ids": words.tolist(), "attention_mask": [1] * length, "labels": topic})
    return rows


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads a batch to its longest sentence, as Hugging Face's DataCollatorWithPadding does."""
    padded = {
        name: pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True)
        for name in ("input_ids", "attention_mask")
    }
    return {**padded, "labels": torch.tensor([row["labels"] for row in rows])}


def loader(rows: list[dict[str, Any]]) -> DataLoader[Any]:
    """Batches as a training loop takes them."""
    return DataLoader(rows, batch_size=64, collate_fn=collate)  # type: ignore[arg-type]


def score(embeddings: np.ndarray, topics: np.ndarray) -> np.ndarray:
    """1 for a sentence whose embedding lies nearest to its topic's centre, else 0."""
    return ((embeddings @ centres().T).argmax(1) == topics).astype(float)


def loss(embeddings: torch.Tensor, topics: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of the cosines to the centres."""
    return nn.functional.cross_entropy(10 * embeddings @ torch.from_numpy(centres()).T, topics)


def data() -> Task:
    """Sentences drawn at random."""
    return Task(
        test=loader(sentences(3000, seed=1)),
        train=loader(sentences(3000, seed=0)),
        score=score,
        score_bounds=(0, 1),
        loss=loss,
        name="sentences",
    )


def model() -> nn.Module:
    """The encoder, trained in half a minute."""
    torch.manual_seed(0)
    network = Encoder()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(4):
        for batch in loader(sentences(3000, seed=0)):
            optimizer.zero_grad()
            loss(network(batch["input_ids"], batch["attention_mask"]), batch["labels"]).backward()
            optimizer.step()
    return network.eval()


def main(folder: str = "runs/sentence_encoder") -> Result:
    """Less than half of the size, no slower than twice at either length, for at most three points."""
    profile = Path(__file__).with_suffix(".yaml")
    result = autocompress(model(), profile, data(), out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
