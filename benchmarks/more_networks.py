"""Networks that are no CIFAR ResNets, with their real tasks: MiniLM, an LSTM, an MLP and SqueezeNet."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
import torch
from networks import require_data
from PIL import Image
from torch import nn
from torch.nn import functional

from autocompress import Task
from autocompress.core.source import ArraySource
from autocompress.data.normalize import Normalize
from autocompress.data.vision import import_torchvision

WIDTH, HEADS, HIDDEN, LAYERS = 384, 12, 1536, 6
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MLP_EPOCHS = 12


class SelfAttention(nn.Module):
    """As in BERT (Devlin et al. 2019), padding masked."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Same shape as `x`, `(n, tokens, width)`; `mask` is `(n, 1, 1, tokens)`, 0 or a large negative number."""
        n, tokens, _ = x.shape
        query, key, value = (
            layer(x).reshape(n, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + mask).softmax(-1)
        return self.output((weights @ value).transpose(1, 2).reshape(n, tokens, WIDTH))


class EncoderLayer(nn.Module):
    """Attention and a feed-forward network, each normalized after its addition."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.ln1(x + self.attention(x, mask))
        return self.ln2(x + self.down(functional.gelu(self.up(x))))


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2 with a head for SST-2; takes token ids, 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, WIDTH), nn.Embedding(512, WIDTH)
        self.types = nn.Parameter(torch.zeros(WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `(n, 2)` of ids `(n, tokens)`."""
        present = (ids != 0).to(self.types.dtype)
        places = self.places(torch.arange(ids.shape[1], device=ids.device))
        x = self.norm(self.words(ids) + places + self.types)
        mask = (1 - present)[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        pooled = (x * present[:, :, None]).sum(1) / present.sum(1, keepdim=True)
        return self.head(pooled)


def minilm() -> MiniLM:
    """The published encoder, its last two layers and the head fine-tuned on SST-2."""
    folder = require_data("minilm_sst2")
    found = torch.load(folder / "minilm_l6_fp16.pth", map_location="cpu", weights_only=True)
    tuned = torch.load(folder / "sst2_top2_head.pth", map_location="cpu", weights_only=True)
    state = {
        "words.weight": found["embeddings.word_embeddings.weight"],
        "places.weight": found["embeddings.position_embeddings.weight"],
        "types": found["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": found["embeddings.LayerNorm.weight"],
        "norm.bias": found["embeddings.LayerNorm.bias"],
    }
    names = {
        "attention.query": ("attention.self.query", "q"),
        "attention.key": ("attention.self.key", "k"),
        "attention.value": ("attention.self.value", "v"),
        "attention.output": ("attention.output.dense", "o"),
        "ln1": ("attention.output.LayerNorm", "ln1"),
        "up": ("intermediate.dense", "f1"),
        "down": ("output.dense", "f2"),
        "ln2": ("output.LayerNorm", "ln2"),
    }
    for place in range(LAYERS):
        for ours, (theirs, short) in names.items():
            for kind in ("weight", "bias"):
                own = tuned.get(f"layers.{place}.{short}.{kind}")
                state[f"layers.{place}.{ours}.{kind}"] = (
                    found[f"encoder.layer.{place}.{theirs}.{kind}"] if own is None else own
                )
    state |= {f"head.{kind}": tuned[f"head.{kind}"] for kind in ("weight", "bias")}
    model = MiniLM()
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def sst2() -> Task:
    """1,821 test sentences, 6,920 to train with, 872 for validation; as many tokens as the longest of the three has."""
    with np.load(require_data("minilm_sst2") / "text_ids.npz") as file:
        parts = {part: (file[f"sst2_{part}_ids"], file[f"sst2_{part}_y"]) for part in ("train", "dev", "test")}
    longest = max(ids.shape[1] for ids, _ in parts.values())

    def padded(part: str) -> tuple[np.ndarray, np.ndarray]:
        ids, labels = parts[part]
        return np.pad(ids.astype(np.int64), ((0, 0), (0, longest - ids.shape[1]))), labels

    return Task(test=padded("test"), train=padded("train"), val=padded("dev"), name="sst2")


class Activity(nn.Module):
    """Two LSTM layers and a linear one on the last step; takes `(n, 128, 9)`."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(9, 64, num_layers=2, batch_first=True)
        self.fc = nn.Linear(64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


def activity() -> Activity:
    """The LSTM of the HAR data."""
    state = torch.load(require_data("har") / "lstm_demo.pth", map_location="cpu", weights_only=True)
    model = Activity()
    model.load_state_dict(state)
    return model.eval()


def har() -> Task:
    """2,947 test windows and 7,352 to train with, other people in each."""
    with np.load(require_data("har") / "har.npz") as file:
        parts = {
            part: (file[f"x_{part}"].astype(np.float32) / 1000, file[f"y_{part}"].astype(np.int64))
            for part in ("train", "test")
        }
    return Task(test=parts["test"], train=parts["train"], name="har")


def mnist() -> Task:
    """10,000 test digits and 20,000 to train with, as rows of 784 values."""
    with np.load(require_data("mnist") / "mnist_20k.npz") as file:
        parts = {
            part: (file[f"x_{part}"].reshape(-1, 784).astype(np.float32) / 255, file[f"y_{part}"].astype(np.int64))
            for part in ("train", "test")
        }
    return Task(test=parts["test"], train=parts["train"], name="mnist")


def mnist_mlp() -> nn.Module:
    """784-512-256-10, trained here for 12 epochs with seed 0."""
    images, labels = mnist().train.read(range(20_000))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    inputs, targets = torch.from_numpy(images[0]), torch.from_numpy(labels)
    for _ in range(MLP_EPOCHS):
        for chosen in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
    return model.eval()


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1 with torchvision's weights."""
    model = import_torchvision().models.squeezenet1_1(weights=None)
    path = require_data("imagenet_squeezenet") / "squeezenet1_1.pth"
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def imagenet_sample() -> Task:
    """1,000 images of 224x224, one a class, and nothing to train with."""
    with zipfile.ZipFile(require_data("imagenet_squeezenet") / "imagenet_sample_224_q90.zip") as file:
        names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
        images = np.stack([np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB")) for name in names])
    labels = np.array([int(name.rpartition("/")[2][:4]) for name in names], dtype=np.int64)
    source = ArraySource((np.ascontiguousarray(images.transpose(0, 3, 1, 2)),), labels, transform=IMAGENET)
    return Task(test=source, name="imagenet sample")
