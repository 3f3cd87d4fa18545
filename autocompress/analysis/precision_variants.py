"""Files of one quantization with different layers in float: made, compared and timed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autocompress.analysis.file_divergence import FileDivergence
from autocompress.analysis.node_times import Profiled
from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Setting
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.sensitivity import IN_FLOAT
from autocompress.core.source import Array, Split
from autocompress.core.technique import ArtifactTechnique, Context, applied
from autocompress.core.tools import Tools
from autocompress.data.example_inputs import feed_of
from autocompress.errors import ENDS_THE_RUN, AutocompressError, RuntimeFailureError, raised_as

# seconds of timing for each file beside the float file
TIMING_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured: a technique with its settings on a float artifact, whose nodes have names.

    `calibration` is where a technique gets its ranges from, and what the outputs are compared on. `shared` is a folder
    in which ranges are kept between techniques' calls; a temporary one where it is None.
    """

    technique: ArtifactTechnique
    settings: Mapping[str, Setting]
    artifact: Artifact
    example: Example
    calibration: Split
    shared: Path | None = None


class Variants:
    """Makes and measures the files of a subject in a folder, on the device of the tools."""

    def __init__(
        self, subject: Subject, tools: Tools, profile: Profile, folder: Path, tell: Callable[[str], None]
    ) -> None:
        self.subject, self._tools, self._profile = subject, tools, profile
        self._folder, self._tell, self._made = folder, tell, 0
        self._divergence = FileDivergence(tools.device, profile, subject.artifact, subject.example, subject.calibration)

    @property
    def items(self) -> int:
        """The number of items that outputs are compared on."""
        return self._divergence.items

    @property
    def feeds(self) -> Iterator[Mapping[str, Array]]:
        """These items in batches, as the float file takes them."""
        return self._divergence.feeds

    def make(self, in_float: Sequence[str] = ()) -> tuple[Artifact, float]:
        """The file with these layers in float, and its divergence from the float file.

        Raises:
            TechniqueError: when there is no such file.
            RuntimeFailureError: when the runtime fails on it.
        """
        subject = self.subject
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        settings = {**subject.settings, **({IN_FLOAT.name: " ".join(in_float)} if in_float else {})}
        context = Context(None, subject.example, subject.calibration, folder, shared=subject.shared or self._folder)
        file = applied(subject.technique, subject.artifact, settings, context)
        return file, self._divergence.of(file)

    def tried(self, in_float: Sequence[str], *, aloud: bool = True) -> tuple[Artifact, float] | None:
        """As `make`; None where there is no such file, which is told where it is to be `aloud`."""
        try:
            return self.make(in_float)
        except ENDS_THE_RUN:
            raise
        except AutocompressError as error:
            if aloud:
                self._tell(f"left as it is: {', '.join(in_float[:3])} in float: {error.message}")
            return None

    def measured(self, in_float: Sequence[str], *, aloud: bool = True) -> tuple[float, int] | None:
        """Divergence and bytes of the file with these layers in float; None where there is no such file."""
        made = self.tried(in_float, aloud=aloud)
        if made is None:
            return None
        file, divergence = made
        size = file.size_bytes
        shutil.rmtree(file.root)
        return divergence, size

    def milliseconds(self, artifact: Artifact) -> tuple[float, float] | None:
        """Latencies of the float file and of another one beside it; None where they cannot be timed."""
        measured = self._timed([artifact])
        if measured is None:
            return None
        before, after = (float(np.median(one.readings["latency_ms"].samples)) for one in measured)
        return before, after

    def latency_shares(self, artifacts: Sequence[Artifact]) -> list[float | None]:
        """The latencies of files as shares of the float file's; None where they cannot be timed."""
        measured = self._timed(artifacts) if artifacts else None
        if measured is None:
            return [None] * len(artifacts)
        before = measured[0].readings
        return [float(np.median(Measurement(one.readings, before).latency_ratios("p50"))) for one in measured[1:]]

    def profiled(self, artifact: Artifact) -> Profiled:
        """The operators of a file with their shares of its time; empty where the runtime does not tell."""
        inputs = feed_of(artifact, self.subject.example, self._profile.protocol.batch)
        try:
            with raised_as(RuntimeFailureError, "device"):
                return self._tools.device.slowest_operators(artifact, self._profile, inputs)
        except RuntimeFailureError as error:
            self._tell(f"operators could not be timed: {error.message}")
            return ()

    def _timed(self, artifacts: Sequence[Artifact]) -> list[Measurement] | None:
        profile = replace(self._profile, budgets=())
        files = [self.subject.artifact, *artifacts]
        try:
            with raised_as(RuntimeFailureError, "device"):
                return self._tools.device.measure(files, profile, self.subject.example, TIMING_SECONDS * len(files))
        except ENDS_THE_RUN:
            raise
        except AutocompressError as error:
            self._tell(f"files could not be timed: {error.message}")
            return None
