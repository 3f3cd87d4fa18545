"""How far the outputs of a file move away from those of the float file, in the runtime on the device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from autocompress.analysis.divergence import Reference, compared_rows
from autocompress.core.artifact import Artifact
from autocompress.core.device import Device
from autocompress.core.output_kinds import OutputFact, OutputKind
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, Session, feeds
from autocompress.core.source import Array, Split
from autocompress.core.targets import mapped, rows_in
from autocompress.data.counted_places import counted_places
from autocompress.system.locks import working

# items that one call computes
BATCH = 16
LEAST_ITEMS, MOST_ITEMS, SECONDS = 64, 256, 0.4
# outputs of which nothing is known are compared as numbers
UNKNOWN = OutputFact(OutputKind.VALUES)


class FileDivergence:
    """Measures how far a file's outputs lie from those of an artifact; see `Divergence`.

    The number of items is what the artifact computes in 0.4 s, between 64 and 256. They are read once. A file with a
    fixed batch gets whole batches.
    """

    def __init__(self, device: Device, profile: Profile, artifact: Artifact, example: Example, split: Split) -> None:
        self._device, self._profile, self._kinds = device, profile, dict(example.kinds)
        session = device.load(artifact, profile)
        some = split.first(LEAST_ITEMS)
        self._batches = list(feeds(some, artifact, BATCH))
        began = time.monotonic()
        for feed, _ in self._batches:
            session.run(feed)
        affordable = int(SECONDS / max(time.monotonic() - began, 1e-9) * len(some))
        if affordable > len(some):
            some = split.first(min(MOST_ITEMS, affordable))
            self._batches = list(feeds(some, artifact, BATCH))
        self.items = len(some)
        self._reference = Reference(self._kinds, self._outputs(artifact))

    @property
    def feeds(self) -> Iterator[Mapping[str, Array]]:
        """The items in batches, as the artifact takes them."""
        return (feed for feed, _ in self._batches)

    def of(self, artifact: Artifact) -> float:
        """The divergence of a file's outputs, at least 0; infinite where they are not finite.

        Raises:
            RuntimeFailureError: when the runtime refuses the file or fails on it.
        """
        return self._reference.divergence(self._outputs(artifact))

    def _outputs(self, artifact: Artifact) -> dict[str, torch.Tensor]:
        session = self._device.load(artifact, self._profile)
        names = [spec.name for spec in artifact.outputs]
        parts: dict[str, list[torch.Tensor]] = {}
        for feed, targets in self._batches:
            for name, rows in self._rows(session, names, feed, targets).items():
                parts.setdefault(name, []).append(rows)
        return {name: torch.cat(portions) for name, portions in parts.items()}

    def _rows(
        self, session: Session, names: list[str], feed: Mapping[str, Array], targets: Any
    ) -> dict[str, torch.Tensor]:
        """The floating outputs of one batch as they are compared, without the rows that only fill it up."""
        with working():
            arrays = dict(zip(names, session.run(feed), strict=True))
        items, fed = rows_in(targets), len(next(iter(feed.values())))
        outputs = {
            name: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[
                : items if len(array) == fed else None
            ]
            for name, array in arrays.items()
            if array.dtype.kind == "f" and array.ndim
        }
        inputs = {name: torch.from_numpy(np.array(array[:items])) for name, array in feed.items()}
        for name in outputs:
            self._kinds.setdefault(name, UNKNOWN)
        labels = mapped(torch.as_tensor, targets)
        counted = counted_places(self._kinds, outputs, labels, inputs)
        return {
            name: compared_rows(self._kinds[name], values, counted.get(name), inputs)
            for name, values in outputs.items()
        }
