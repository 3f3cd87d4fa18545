"""Tasks: the data in its splits, and the score of a model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from autocompress.core.aggregate import AGGREGATES, Aggregate, first_output
from autocompress.core.class_labels import require_class_scores, require_labels
from autocompress.core.code_hash import code_hash
from autocompress.core.data_sources import as_source
from autocompress.core.output_kinds import Declared, declared_kinds
from autocompress.core.score_bounds import RATE, Bounds, as_bounds
from autocompress.core.source import Array, DatasetSource, Split, third, to_array, whole
from autocompress.core.targets import Targets, arrays_in, rows_in
from autocompress.core.unlabelled_items import require_no_loss, unlabelled_source
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError

Score = Callable[[Any, Any], Any]
Loss = Callable[[Any, Any], Any]
Augment = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Task:
    """The data of a task in its splits, and how outputs are scored.

    Args:
        test: what accuracy is certified on. Sources are `(inputs, targets)` arrays, a Dataset or a DataLoader;
            several inputs are a tuple of arrays or a dict by argument name, several targets a tuple or a dict.
        train: what may be trained on and calibrated with; its items need no target where there is no loss, and then the
            original alone teaches.
        val: the validation split, which selects between candidates. Without it, a third of `test` selects and the rest
            is the holdout.
        score: `score(outputs, targets) -> (n,)`, higher is better; by name (`top1`, `top5`, `negative_error`,
            `token_accuracy`) or a callable on numpy arrays, outputs and targets each one array or several (see
            `autocompress.core.outputs.as_given`). A score of all items together is an `Aggregate`, or one by name:
            `macro_f1`, `spearman`, `negative_perplexity`.
        score_bounds: the least and the greatest value that a callable score or `negative_error` gives an item, such as
            `(0, 1)`. Scores in known bounds are read until the answer is clear and judged by bounds that hold for every
            distribution; without them all items are read and the bounds are asymptotic. Those of `top1`, `top5` and
            `token_accuracy` are known.
        loss: `loss(outputs, targets)` on tensors of the same form, for training.
        augment: a function on a batch of input tensors, for training; one of two arguments gets inputs and targets
            and returns both.
        left_out: indices of test items that must not confirm, as a run finds them: they occur elsewhere as well.
        targets: names of the columns that are targets, where items are mappings: one is an array, several are a dict by
            name. Without it the first of `labels`, `label`, `targets`, `target` and `y` that is there.
        collate: a function that puts a list of items into a batch, as a DataLoader's `collate_fn`; it pads items of
            different lengths. For sources that bring none of their own.
        output_kind: what outputs are, where the model's values do not tell: a word for the only output, or words by
            output name (`autocompress.core.output_kinds.WORDS`).
    """

    test: Any = None
    train: Any = None
    val: Any = None
    score: str | Score | Aggregate = "top1"
    loss: Loss | None = None
    augment: Augment | None = None
    name: str = "data"
    score_bounds: Bounds | None = None
    left_out: Sequence[int] = ()
    targets: str | Sequence[str] = ()
    collate: Callable[[list[Any]], Any] | None = None
    output_kind: Declared = ""

    def __post_init__(self) -> None:
        named = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        object.__setattr__(self, "targets", named)
        for field in ("test", "train", "val"):
            where = f"{self.name}: {field}"
            try:
                with raised_by_user(where):
                    given = getattr(self, field)
                    source = unlabelled_source(given) if field == "train" and not named else None
                    source = source or as_source(given, trains=field == "train", targets=named)
            except DataError as error:
                # the same loader may be right for one field and wrong for another
                raise DataError(error.message, where=where, hint=error.hint) from error
            if source is not None and len(source) == 0:
                raise DataError("is empty.", where=where, hint="Give at least one item, or None.")
            if isinstance(source, DatasetSource) and source.where != where:
                source = replace(source, where=where, collate=source.collate or self.collate)
            object.__setattr__(self, field, source)
        self._require_functions()
        require_no_loss(self.train, self.loss)
        known = (*SCORES, *AGGREGATES)
        if isinstance(self.score, str) and self.score not in known:
            raise DataError(
                f"there is no score named {self.score!r}.", where="score", hint=f"Known: {', '.join(known)}."
            )
        declared_kinds(self.output_kind)
        if self.score_bounds is not None:
            if self.aggregate is not None:
                raise DataError(
                    f"cannot be given for {self.score_name}: no item has a score of its own.",
                    where="score_bounds",
                    hint="Leave them out.",
                )
            declared = as_bounds(self.score_bounds, self.score_name, self._named_bounds)
            object.__setattr__(self, "score_bounds", declared)

    def _require_functions(self) -> None:
        score = None if isinstance(self.score, str | Aggregate) else self.score
        for where, function, form in (
            ("score", score, "a name, an Aggregate or a function score(outputs, targets)"),
            ("loss", self.loss, "a function loss(outputs, targets), such as torch.nn.CrossEntropyLoss()"),
            ("augment", self.augment, "a function of a batch of input tensors"),
        ):
            if isinstance(function, type):
                # calling it would make an object of it, not a score or a loss
                name = function.__name__
                raise DataError(f"is the class {name}, not an object of it.", where=where, hint=f"Give {name}().")
            if function is not None and not callable(function):
                raise DataError(f"is {kind_of(function)}, not a function.", where=where, hint=f"Give {form}.")

    @property
    def validation(self) -> Split | None:
        """The validation split, which selects between candidates: `val`, else a third of `test`."""
        if self.val is not None:
            return whole("val", self.val)
        if self.test is None:
            return None
        return Split("test, validation third", self.test, third(len(self.test), selects=True))

    @property
    def holdout(self) -> Split | None:
        """The holdout split, used only for confirmation: what was set aside, without what is left out."""
        aside = self.set_aside
        return aside.without(np.asarray(self.left_out, dtype=np.int64)) if aside and self.left_out else aside

    @property
    def set_aside(self) -> Split | None:
        """The items set aside for confirmation: `test`, or two thirds of it when there is no `val`."""
        if self.test is None:
            return None
        if self.val is not None:
            return whole("test", self.test)
        return Split("test, holdout two thirds", self.test, third(len(self.test), selects=False))

    @property
    def everything(self) -> Split:
        """All test items, for judging an artifact that was not chosen with them.

        Raises:
            DataError: when there are no test items.
        """
        if self.test is None:
            raise DataError("has no test items.", where=self.name)
        return whole("test", self.test)

    @property
    def calibration(self) -> Split | None:
        """The split that quantization ranges are calibrated on: `train`, else validation; never the holdout."""
        return whole("train", self.train) if self.train is not None else self.validation

    @property
    def aggregate(self) -> Aggregate | None:
        """The score as an `Aggregate` of all items together, None where every item has a score of its own."""
        if isinstance(self.score, str):
            return AGGREGATES.get(self.score)
        return self.score if isinstance(self.score, Aggregate) else None

    def scores(self, outputs: Any, targets: Targets) -> NDArray[np.float64]:
        """The score of each item, shape `(n,)`; for an aggregate each item's contribution, shape `(n, k)`.

        Raises:
            DataError: when the score function raises or returns something else.
        """
        aggregate = self.aggregate
        if isinstance(self.score, str) and not isinstance(targets, np.ndarray):
            raise DataError(
                f"{self.score} takes one array of targets, not several ({', '.join(arrays_in(targets))}).",
                where="score",
                hint="Give the task a score function for them.",
            )
        if aggregate is not None:
            function: Score = aggregate.records
        else:
            function = SCORES[self.score] if isinstance(self.score, str) else cast("Score", self.score)
        called = (
            f"Give a function that takes arrays, here {_shapes(outputs)} and {_shapes(targets)}, and scores each item."
        )
        with raised_by_user("score", function=function, called=called):
            given = function(outputs, targets)
        hint = "Return one finite number per item, higher for better."
        try:
            result = to_array(given).astype(np.float64)
        except DataError as error:
            message = f"returned {kind_of(given)}, which {error.message}"
            raise DataError(with_line(message, definition_of(function)), where="score", hint=hint) from error
        if aggregate is not None and result.ndim == 1:
            result = result[:, None]
        items = rows_in(targets)
        if result.ndim != (1 if aggregate is None else 2) or len(result) != items:
            message = f"returned shape {result.shape} for {items} items"
            raise DataError(with_line(message, definition_of(function)), where="score", hint="One score per item.")
        if not np.isfinite(result).all():
            message = "returned values that are not finite"
            raise DataError(with_line(message, definition_of(function)), where="score", hint=hint)
        return result

    @property
    def bounds(self) -> Bounds | None:
        """The least and the greatest value of an item's score, None where they are not known."""
        return self.score_bounds or self._named_bounds

    @property
    def _named_bounds(self) -> Bounds | None:
        """The bounds that a score known by name has of its own."""
        return SCORE_BOUNDS.get(self.score) if isinstance(self.score, str) else None

    def columns(self, outputs: Any, targets: Targets) -> dict[str, NDArray[np.float64]]:
        """The `score` of each item and, in classification, its predicted class `answer` and its `label`."""
        found = {"score": self.scores(outputs, targets)}
        if self.chooses_classes:
            found["answer"] = first_output(outputs).argmax(1).astype(np.float64)
            found["label"] = np.asarray(targets).astype(np.float64)
        return found

    @property
    def score_name(self) -> str:
        """The name of the score; for a callable, where it is defined."""
        if isinstance(self.score, str):
            return self.score
        if isinstance(self.score, Aggregate):
            return self.score.name
        kind = self.score if hasattr(self.score, "__qualname__") else type(self.score)
        return f"{kind.__module__}.{kind.__qualname__}"

    @property
    def score_code(self) -> str:
        """A hash of what the score computes, and of its bounds."""
        return code_hash((self.score, self.bounds))

    def value(self, scores: NDArray[np.float64]) -> float:
        """The score of all items: the mean of their `scores`, or what the aggregate computes from them.

        Raises:
            DataError: when the aggregate's `value` raises or gives no number.
        """
        if self.aggregate is None:
            return float(scores.mean())
        with raised_by_user("score", "its value raised", self.aggregate.value):
            return float(self.aggregate.value(scores))

    @property
    def chooses_classes(self) -> bool:
        """True when every item has one right class out of several."""
        return self.score in CLASS_SCORES

    @property
    def score_is_rate(self) -> bool:
        """True when the score is a share between 0 and 1, as the share of right answers is."""
        return self.chooses_classes or (self.aggregate is not None and self.aggregate.is_rate)


def _shapes(values: Any) -> str:
    """The shapes of one array, or of several."""
    if hasattr(values, "shape"):
        return f"of shape {tuple(values.shape)}"
    return f"a {type(values).__name__} of them"


def _class_scores(outputs: Any, targets: Array, k: int) -> Array:
    logits = first_output(outputs)
    require_class_scores(logits, targets, k)
    classes = logits.shape[1]
    require_labels(targets, classes)
    if len(logits) != len(targets):
        raise DataError(f"{len(logits)} outputs for {len(targets)} labels.", where="score")
    rows = np.arange(len(targets))
    # an item is in the top k when fewer than k classes score higher; ties count for the lower index
    own = logits[rows, targets.astype(np.int64)][:, None]
    ahead = (logits > own).sum(1) + ((logits == own) & (np.arange(classes) < targets[:, None])).sum(1)
    return np.asarray(ahead < k)


def top1(outputs: Any, targets: Array) -> Array:
    """1 where the label's class scores highest, shape `(n,)`."""
    return _class_scores(outputs, targets, 1)


def top5(outputs: Any, targets: Array) -> Array:
    """1 where the label's class is among the five highest, shape `(n,)`."""
    return _class_scores(outputs, targets, 5)


def negative_error(outputs: Any, targets: Array) -> Array:
    """Minus the mean absolute error of each item, shape `(n,)`."""
    values = first_output(outputs)
    if values.shape != targets.shape and (values.size != targets.size or values.shape[:1] != (len(targets),)):
        raise DataError(f"outputs have shape {values.shape}, targets {targets.shape}.", where="score")
    return np.asarray(-np.abs(values.reshape(len(targets), -1) - targets.reshape(len(targets), -1)).mean(1))


def token_accuracy(outputs: Any, targets: Array) -> Array:
    """Share of an item's tokens predicted right, shape `(n,)`; targets below 0 are padding."""
    values = first_output(outputs)
    if values.ndim < 3 or values.shape[:-1] != targets.shape:
        raise DataError(
            f"outputs have shape {values.shape}, targets {targets.shape}.",
            where="score",
            hint="Expected (n, tokens, classes) and (n, tokens).",
        )
    right = (values.argmax(-1) == targets) & (targets >= 0)
    return np.asarray(right.sum(1) / np.maximum((targets >= 0).sum(1), 1))


# outputs have classes on the last axis, and targets below 0 count for nothing
TOKEN_SCORES = ("token_accuracy", "negative_perplexity")
CLASS_SCORES = ("top1", "top5", "macro_f1")
ERROR_SCORES = ("negative_error", "spearman")
SCORES: Mapping[str, Score] = {
    "top1": top1,
    "top5": top5,
    "negative_error": negative_error,
    "token_accuracy": token_accuracy,
}
SCORE_BOUNDS: Mapping[str, Bounds] = dict.fromkeys(("top1", "top5", "token_accuracy"), RATE)
