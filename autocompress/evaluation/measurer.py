"""Measures artifacts beside the baseline, always on the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import zstandard

from autocompress.core.artifact import BYTES_PER_MB, Artifact
from autocompress.core.device import Device
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.core.task import Task
from autocompress.download.files import download_bytes
from autocompress.evaluation.scorer import Scorer

DOWNLOAD_LEVEL = 19
PIECE_BYTES = 1 << 24


class Measurer:
    """Measures artifacts on one device, as one profile says, beside the baseline where there is one.

    `examples` give the inputs that calls are timed with at each set of input shapes, by its name, the largest last;
    None makes them up where the artifact says their sizes.
    """

    def __init__(
        self,
        device: Device,
        profile: Profile,
        task: Task | None,
        examples: Mapping[str, Example | None],
        baseline: Artifact | None,
    ) -> None:
        self.profile = profile
        self.baseline = baseline
        self._device, self._examples = device, examples
        self._scorer = Scorer(device, profile, task or Task())
        # by the hash of the artifact: the baseline is asked for with every candidate
        self._download_bytes: dict[str, int] = {}

    def size(self, artifact: Artifact) -> Measurement:
        """Measure size in MB and, where a budget asks for it, download size (zstd at level 19, or .acz)."""
        return Measurement(self._sizes(artifact), {} if self.baseline is None else self._sizes(self.baseline))

    def time(
        self,
        artifact: Artifact,
        max_seconds: float | None = None,
        alpha: float | None = None,
        also: Collection[str] = (),
    ) -> Measurement:
        """Measure latency in blocks that alternate with the baseline's, and memory, each in a fresh process.

        Each set of input shapes is measured after the other, for as long as the protocol says.

        It is to be judged at the error probability `alpha`, the profile's by default: lower ones take more loads. What
        is named in `also` is measured as if it had a budget.

        Raises:
            DeviceError, RuntimeFailureError: see `Device.measure`.
        """
        profile = self.profile if alpha is None else self.profile.at_level(alpha)
        return self._timed(artifact, profile, max_seconds, also)

    def estimate_time(self, artifact: Artifact, max_seconds: float) -> Measurement:
        """Measure latency and memory like `time`, but without going on until the budgets are decided.

        Raises:
            DeviceError, RuntimeFailureError: see `Device.measure`.
        """
        return self._timed(artifact, replace(self.profile, budgets=()), max_seconds)

    def _timed(
        self, artifact: Artifact, profile: Profile, max_seconds: float | None, also: Collection[str] = ()
    ) -> Measurement:
        taken = {
            name: self._timed_at(example, artifact, profile, max_seconds, also)
            for name, example in self._examples.items()
        }
        _, largest = taken.popitem()
        return replace(largest, smaller=taken)

    def _timed_at(
        self,
        example: Example | None,
        artifact: Artifact,
        profile: Profile,
        max_seconds: float | None,
        also: Collection[str],
    ) -> Measurement:
        def measured(*artifacts: Artifact) -> list[Measurement]:
            return self._device.measure(artifacts, profile, example, max_seconds, also)

        if self.baseline is None:
            return measured(artifact)[0]
        if artifact.hash == self.baseline.hash:
            (only,) = measured(artifact)
            return Measurement(only.readings, only.readings, only.conditions, unchanged=True)
        before, after = measured(self.baseline, artifact)
        return Measurement(after.readings, before.readings, after.conditions)

    def score(self, artifact: Artifact, split: Split) -> Measurement:
        """Score the artifact and the baseline on the same items.

        Scores have shape `(n,)` where every item has its own. In classification the predicted classes of both and the
        labels are given as well.

        Raises:
            DataError: when the data do not fit the artifact or its outputs.
            RuntimeFailureError: when outputs are not finite.
        """
        return self._scorer.measurement(artifact, self.baseline, split)

    def seconds_per_item(self, split: Split) -> float:
        """About the seconds that scoring an item takes; the baseline is timed on a few of the split at first."""
        return 0.0 if self.baseline is None else self._scorer.seconds_per_item(self.baseline, split)

    def _sizes(self, artifact: Artifact) -> dict[str, Reading]:
        readings = {"size_mb": Reading.one("MB", artifact.size_bytes / BYTES_PER_MB)}
        if self.profile.limits("download_mb"):
            readings["download_mb"] = Reading.one("MB", self._download_size(artifact) / BYTES_PER_MB)
        return readings

    def _download_size(self, artifact: Artifact) -> int:
        """Bytes of the download, as the profile says how the file is sent."""
        if artifact.hash not in self._download_bytes:
            if self.profile.download == "acz":
                size = download_bytes(artifact)
            else:
                size = sum(_packed_bytes(artifact.root / name) for name in artifact.files)
            self._download_bytes[artifact.hash] = size
        return self._download_bytes[artifact.hash]


def _packed_bytes(path: Path) -> int:
    """Size of a file in bytes after compression, a piece at a time: files may hold gigabytes."""
    compressor = zstandard.ZstdCompressor(level=DOWNLOAD_LEVEL).compressobj(path.stat().st_size)
    with path.open("rb") as file:
        pieces = iter(lambda: file.read(PIECE_BYTES), b"")
        return sum(len(compressor.compress(piece)) for piece in pieces) + len(compressor.flush())
