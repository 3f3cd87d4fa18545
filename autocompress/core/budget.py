"""Budgets: the limits a deployable file has to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from autocompress.errors import ProfileError


class Direction(StrEnum):
    """Whether values below or above the limit are good."""

    AT_MOST = "at most"
    AT_LEAST = "at least"


@dataclass(frozen=True)
class Metric:
    """A quantity that a budget may limit.

    `structural` metrics depend on the artifact's structure alone, not on the values of its weights, so they
    can be measured before any training.
    """

    name: str
    unit: str
    direction: Direction
    may_be_relative: bool
    structural: bool
    describes: str


_METRICS = (
    Metric("size_mb", "MB", Direction.AT_MOST, True, True, "bytes of the file that ships, 1 MB = 1,000,000"),
    Metric("download_mb", "MB", Direction.AT_MOST, True, True, "bytes of that file compressed with zstd"),
    Metric("memory_mb", "MB", Direction.AT_MOST, True, True, "peak resident memory above an empty runtime"),
    Metric("latency_ms", "ms", Direction.AT_MOST, True, True, "time of one call at the profile's batch"),
    Metric("throughput_per_s", "items/s", Direction.AT_LEAST, True, True, "items per second of all streams together"),
    Metric("energy_mj", "mJ", Direction.AT_MOST, True, True, "energy of one call"),
    Metric("max_accuracy_drop_pp", "pp", Direction.AT_MOST, False, False, "points of accuracy lost"),
    Metric("min_accuracy", "%", Direction.AT_LEAST, False, False, "accuracy of the compressed model"),
    Metric("max_score_drop", "score", Direction.AT_MOST, False, False, "loss in the task's own score"),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _METRICS}
ACCURACY_METRICS = frozenset({"max_accuracy_drop_pp", "min_accuracy", "max_score_drop"})
# metrics of bytes, and metrics that are taken in blocks of calls
SIZE_METRICS = ("size_mb", "download_mb", "memory_mb")
TIME_METRICS = ("latency_ms", "throughput_per_s", "energy_mj")


@dataclass(frozen=True)
class Budget:
    """A limit on one metric, absolute in the metric's unit or a share of the baseline's value."""

    metric: str
    limit: float
    relative: bool = False

    def __post_init__(self) -> None:
        spec = METRICS.get(self.metric)
        if spec is None:
            raise ProfileError(
                f"there is no budget named {self.metric!r}.", where="budgets", hint=f"Known: {', '.join(METRICS)}."
            )
        if not math.isfinite(self.limit) or self.limit < 0:
            raise ProfileError(
                f"a limit must be a number of at least 0, not {self.limit:g}.", where=f"budgets.{self.metric}"
            )
        if self.limit == 0 and self.metric not in ACCURACY_METRICS:
            raise ProfileError("a limit of 0 can never be met.", where=f"budgets.{self.metric}")
        if self.relative and not spec.may_be_relative:
            raise ProfileError(
                f"cannot be a share of the baseline; give it in {spec.unit}.", where=f"budgets.{self.metric}"
            )
        if self.metric == "min_accuracy" and (self.limit > 100 or 0 < self.limit < 1):
            hint = f"Write {100 * self.limit:g} for {100 * self.limit:g} %." if self.limit < 1 else ""
            raise ProfileError("accuracy is given in percent, at most 100.", where="budgets.min_accuracy", hint=hint)
        if self.metric == "max_accuracy_drop_pp" and self.limit > 100:
            raise ProfileError(
                f"a drop is given in points of accuracy, at most 100, not {self.limit:g}.",
                where="budgets.max_accuracy_drop_pp",
                hint="Leave it out to allow any.",
            )

    @property
    def unit(self) -> str:
        """Unit of the metric."""
        return METRICS[self.metric].unit

    @property
    def direction(self) -> Direction:
        """Whether values below or above the limit are good."""
        return METRICS[self.metric].direction

    @property
    def structural(self) -> bool:
        """True when the metric does not depend on trained weights."""
        return METRICS[self.metric].structural

    @property
    def text(self) -> str:
        """The limit as a person writes it: `0.5x`, `12 ms`."""
        return f"{self.limit:g}x" if self.relative else f"{self.limit:g} {self.unit}"

    def __str__(self) -> str:
        sign = "<=" if self.direction is Direction.AT_MOST else ">="
        return f"{self.metric} {sign} {self.text}"

    @staticmethod
    def parse(metric: str, value: float | str) -> Budget:
        """A budget from `12`, `"12"` or `"0.5x"`.

        Raises:
            ProfileError: when the text is no number, the metric is unknown or the limit is not allowed.
        """
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise _no_limit(metric, value)
        text = str(value).strip()
        relative = text.endswith(("x", "X"))
        try:
            limit = float(text[:-1] if relative else text)
        except ValueError:
            raise _no_limit(metric, value) from None
        return Budget(metric, limit, relative)


def _no_limit(metric: str, value: object) -> ProfileError:
    spec = METRICS.get(metric)
    unit = f" of {spec.unit}" if spec else ""
    share = ", or 0.5x for half of what the model has now" if spec is None or spec.may_be_relative else ""
    return ProfileError(
        f"{value!r} is not a limit.",
        where=f"budgets.{metric}",
        hint=f"Write a number{unit}, without a unit{share}.",
    )


def parse_budgets(budgets: Mapping[str, float | str] | None) -> list[Budget]:
    """The budgets of a call or command line, by metric; none where nothing was given.

    Raises:
        ProfileError: when one of them is not a budget; see `Budget.parse`.
    """
    return [Budget.parse(metric, value) for metric, value in (budgets or {}).items()]


@dataclass(frozen=True)
class GateRule:
    """How the CI gate treats a budget: its severity, undecided results, and a message.

    `severity` is that of a broken budget, `on_undecided` what an undecided one counts as, `message` the words to show.
    """

    severity: str = "error"
    on_undecided: str = "fail"
    message: str = ""


def merge(budgets: Iterable[Budget], replacements: Iterable[Budget]) -> tuple[Budget, ...]:
    """The `budgets`, with those of the same metric replaced, in the order of `METRICS`."""
    chosen = {budget.metric: budget for budget in budgets}
    chosen |= {budget.metric: budget for budget in replacements}
    return tuple(chosen[name] for name in METRICS if name in chosen)
