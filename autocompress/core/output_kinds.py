"""Kinds of outputs: what an output's numbers mean, which decides how two networks are compared by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from autocompress.errors import DataError


class OutputKind(StrEnum):
    """What the numbers of an output mean."""

    LOGITS = "logits"
    MULTILABEL_LOGITS = "multilabel_logits"
    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log_probabilities"
    SIGMOID = "sigmoid"
    EMBEDDING = "embedding"
    VALUES = "values"
    BOXES = "boxes"
    STATES = "states"


# declared for either of the two kinds of yes-or-no outputs; values between 0 and 1 tell them apart
MASKS = "masks"
# kinds with a distribution over classes
OF_CLASSES = (OutputKind.LOGITS, OutputKind.PROBABILITIES, OutputKind.LOG_PROBABILITIES)
# kinds with a probability of their own for each number
OF_YES_OR_NO = (OutputKind.MULTILABEL_LOGITS, OutputKind.SIGMOID)
WORDS = (*OutputKind, MASKS)
DESCRIPTIONS: Mapping[OutputKind, str] = {
    OutputKind.LOGITS: "class logits",
    OutputKind.MULTILABEL_LOGITS: "logits of a yes or no each",
    OutputKind.PROBABILITIES: "probabilities of classes, as of softmax",
    OutputKind.LOG_PROBABILITIES: "log-probabilities of classes",
    OutputKind.SIGMOID: "probabilities of a yes or no each, as of a sigmoid",
    OutputKind.EMBEDDING: "embedding, whose direction counts",
    OutputKind.VALUES: "values of a regression",
    OutputKind.BOXES: "coordinates of boxes",
    OutputKind.STATES: "inner states",
}


@dataclass(frozen=True)
class OutputFact:
    """The kind of an output, and what it was recognised by.

    `axis` is that of the classes, or of an embedding's vector; None for kinds without one.
    """

    kind: OutputKind
    axis: int | None = None
    reason: str = ""

    @property
    def divergence(self) -> str:
        """How two networks are compared by such outputs, in words."""
        if self.kind in OF_CLASSES:
            return "KL"
        if self.kind in OF_YES_OR_NO:
            return "Bernoulli KL"
        return "cosine distance" if self.kind is OutputKind.EMBEDDING else "squared error over the spread"

    def told(self, name: str) -> str:
        """A line for the user, who may know better."""
        axis = f" on axis {self.axis}" if self.axis is not None and self.axis != 1 else ""
        reason = f" ({self.reason})" if self.reason else ""
        which = "the output" if name == "output" else f"output {name}"
        return f"{which}: {DESCRIPTIONS[self.kind]}{axis}{reason}; divergence: {self.divergence}"

    def to_json(self) -> dict[str, Any]:
        """The fact as a JSON object."""
        return {**asdict(self), "kind": str(self.kind)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> OutputFact:
        """The fact that `to_json` wrote."""
        return OutputFact(OutputKind(data["kind"]), data["axis"], data["reason"])


# what users declare: a word for the only output, or words by output name
Declared = str | Mapping[str, str] | Sequence[str]


def declared_kinds(given: Declared) -> dict[str, str]:
    """The declared words by output name; a word alone has the name "".

    They are a word, a mapping, or texts such as `boxes=values`.

    Raises:
        DataError: when a word names no kind, or an output is declared twice.
    """
    if isinstance(given, Mapping):
        pairs = [(str(name), str(word)) for name, word in given.items()]
    else:
        texts = [given] if isinstance(given, str) else list(given)
        pairs = [(name.strip(), word.strip()) for name, _, word in (text.rpartition("=") for text in texts if text)]
    found: dict[str, str] = {}
    for name, word in pairs:
        if word not in WORDS:
            raise DataError(
                f"there is no kind of output named {word!r}.", where="output_kind", hint=f"Known: {', '.join(WORDS)}."
            )
        if name in found:
            raise DataError(f"is given twice for {name or 'the output'}.", where="output_kind", hint="Give it once.")
        found[name] = word
    return found
