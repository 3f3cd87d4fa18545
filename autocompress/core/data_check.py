"""What a run found in its data when it was opened: repeated items, and the hash of the holdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# pairs of items that a sentence and result.json name
NAMED = 3
NAMED_IN_RESULT = 20


@dataclass(frozen=True)
class Overlap:
    """Items of one split whose inputs equal those of another item.

    Args:
        split: the split of the items, "holdout" or "validation".
        field: the task's field that `pairs` count them in, "test" or "val".
        also_in: where the other item is: "train", "validation" or "holdout".
        other_field: the task's field that `pairs` count the other item in.
        pairs: index of each item, and of the first one equal to it.
        other_targets: number of pairs whose targets differ.
    """

    split: str
    field: str
    also_in: str
    other_field: str
    pairs: tuple[tuple[int, int], ...]
    other_targets: int

    def sentence(self, total: int) -> str:
        """The overlap in words; `total` is the size of the split."""
        named = ", ".join(f"{self.field} {one} = {self.other_field} {other}" for one, other in self.pairs[:NAMED])
        more = ", ..." if len(self.pairs) > NAMED else ""
        one = len(self.pairs) == 1
        if self.split != "holdout":
            what, then = f"also in {self.also_in}", ", so candidates look better than they are while they are chosen"
        elif self.also_in == "holdout":
            what, then = "a copy of another one" if one else "copies of others", " and not counted again"
        else:
            what = f"also in {self.also_in}" if self.also_in == "train" else "also among the validation items"
            then = " and left out"
        conflict = f"; {self.other_targets} with another target" if self.other_targets else ""
        verb = "is" if one else "are"
        end = "" if more and not conflict else "."
        return f"{len(self.pairs):,} of {total:,} {self.split} items {verb} {what}{then}: {named}{more}{conflict}{end}"

    def to_json(self, named: int | None = None) -> dict[str, Any]:
        """The overlap as a JSON object, with the first `named` pairs or all."""
        pairs = [list(pair) for pair in self.pairs[:named]]
        return {**vars(self), "pairs": pairs, "count": len(self.pairs)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Overlap:
        """The overlap that `to_json` wrote."""
        pairs = tuple((int(one), int(other)) for one, other in data["pairs"])
        return Overlap(
            data["split"], data["field"], data["also_in"], data["other_field"], pairs, int(data["other_targets"])
        )


@dataclass(frozen=True)
class DataCheck:
    """The check of a task's data.

    Args:
        holdout_hash: content of the items set aside for confirming, left out or not; empty where there are none.
        holdout: number of these items.
        validation: number of validation items.
        overlaps: the repeated items.
        train: number of training items.
        train_read: training items among which repeated ones were looked for.
        train_stable: False where training items are others each time they are read, so that none can be found there.
        holdout_read: holdout items that were read and compared when the run began; None for all.
        validation_read: the same of validation items.
    """

    holdout_hash: str = ""
    holdout: int = 0
    validation: int = 0
    overlaps: tuple[Overlap, ...] = ()
    train: int = 0
    train_read: int = 0
    train_stable: bool = True
    holdout_read: int | None = None
    validation_read: int | None = None

    @property
    def left_out(self) -> tuple[int, ...]:
        """Indices of the test items that must not confirm, ascending."""
        return tuple(sorted(one for overlap in self.overlaps if overlap.split == "holdout" for one, _ in overlap.pairs))

    @property
    def sentences(self) -> Sequence[str]:
        """What a user should know, one sentence each; none when all items differ and all were looked at."""
        totals = {"holdout": self.holdout, "validation": self.validation}
        found = [overlap.sentence(totals[overlap.split]) for overlap in self.overlaps]
        if self.left_out:
            found.append(f"{self.holdout - len(self.left_out):,} holdout items are left to confirm with.")
        for name, read, total in (
            ("holdout", self.holdout_read, self.holdout),
            ("validation", self.validation_read, self.validation),
        ):
            if read is not None and read < total:
                found.append(
                    f"{read:,} of {total:,} {name} items were read when the run began: repeated ones among the others "
                    "are not known, and their shapes and values are checked when they are read to be judged."
                )
        if not self.train_stable:
            found.append(
                "Training items are others each time they are read, so whether test items are among them is not known."
            )
        elif self.train_read < self.train:
            found.append(
                f"Repeated items were looked for among {self.train_read:,} of {self.train:,} training items, "
                "as many as could be read in the time for it."
            )
        return found

    def to_json(self, named: int | None = None) -> dict[str, Any]:
        """The check as a JSON object, with the first `named` pairs of each overlap or all."""
        return {
            **vars(self),
            "overlaps": [overlap.to_json(named) for overlap in self.overlaps],
            "left_out": len(self.left_out),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> DataCheck:
        """The check that `to_json` wrote with all pairs."""
        kept = {key: value for key, value in data.items() if key not in ("overlaps", "left_out")}
        return DataCheck(overlaps=tuple(Overlap.from_json(one) for one in data["overlaps"]), **kept)
