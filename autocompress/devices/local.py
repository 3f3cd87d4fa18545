"""The machine that autocompress runs on, measured in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autocompress import meter
from autocompress.artifact import Artifact
from autocompress.device import Device
from autocompress.devices.process import MeterProcess
from autocompress.errors import DeviceError, RuntimeFailureError
from autocompress.examples import made_up_arrays
from autocompress.machine import Machine
from autocompress.measurement import Conditions, Measurement, Reading
from autocompress.profile import Profile
from autocompress.runtime import Example, align
from autocompress.scratch import scratch
from autocompress.source import Array
from autocompress.statistics import median_bounds
from autocompress.turns import measuring

METER = Path(meter.__file__).parent
FLOATS = NDArray[np.float64]
MIN_ROUNDS = 9
WARM_UP_SECONDS = 0.3
# a 95 % interval of the median, to know when the profile's precision is reached
PRECISION_ALPHA = 0.025


class LocalDevice(Device):
    """The present machine."""

    def machine(self) -> Machine:
        """See `Device.machine`; read once."""
        return self._machine

    @cached_property
    def _machine(self) -> Machine:
        command = [sys.executable, str(METER / "describe.py")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise DeviceError(f"cannot be described: {done.stderr.strip()[-300:]}", where="this machine")
        return Machine.from_json(json.loads(done.stdout))

    def measure(
        self,
        artifacts: Sequence[Artifact],
        profile: Profile,
        example: Example | None = None,
        max_seconds: float | None = None,
    ) -> list[Measurement]:
        """See `Device.measure`."""
        limit = max_seconds or profile.protocol.max_seconds
        # every measurement on this machine passes here, whoever asks for it; one on another machine disturbs none
        with measuring(), ExitStack() as stack:
            folder = stack.enter_context(scratch("meter"))
            meters = []
            for place, artifact in enumerate(artifacts):
                feed = folder / f"{place}.npz"
                inputs = _feed(artifact, example, profile.protocol.batch)
                # numpy has arguments of its own, `file` among them
                np.savez(feed, **{f"input {name}": array for name, array in inputs.items()})  # type: ignore[arg-type]
                process = stack.enter_context(MeterProcess(METER / "program.py", artifact.path))
                process.open(feed, profile.runtime.threads, profile.runtime.options)
                meters.append(process)
            blocks = _alternate(meters, limit, profile)
            return [
                Measurement(
                    {
                        "latency_ms": Reading("ms", np.array(times)),
                        "memory_mb": Reading.one("MB", process.memory_mb),
                    },
                    conditions=Conditions(
                        artifact.hash,
                        profile.runtime.name,
                        {"onnxruntime": process.version, "python": sys.version.split()[0]},
                        profile.runtime.threads,
                        profile.protocol.batch,
                        str(self.machine()),
                    ),
                )
                for artifact, process, times in zip(artifacts, meters, blocks, strict=True)
            ]


def _alternate(meters: Sequence[MeterProcess], max_seconds: float, profile: Profile) -> list[list[list[float]]]:
    """Blocks of calls, in turn and in alternating order.

    Ends when the intervals are as narrow as the profile's precision and clear of its latency budgets. Where they
    are narrow but a budget lies inside, it goes on to `max_seconds` without looking again: looking after every
    block and stopping at the first favourable interval would favour whatever chance brings.
    """
    to_the_end = False
    calls = [_block_size(_warm_up(meter), max_seconds / (MIN_ROUNDS * len(meters))) for meter in meters]
    blocks: list[list[list[float]]] = [[] for _ in meters]
    start = time.monotonic()
    for number in range(10_000):
        # forwards and backwards in turn, so that a steady drift does not favour one of them
        order = range(len(meters)) if number % 2 == 0 else reversed(range(len(meters)))
        for i in order:
            blocks[i].append(meters[i].block(calls[i], discard=max(1, calls[i] // 10)))
        if time.monotonic() - start > max_seconds:
            break
        if to_the_end or number + 1 < MIN_ROUNDS:
            continue
        values = [Reading("ms", np.array(times)).block_statistic(profile.protocol.statistic) for times in blocks]
        if _precise(values, profile.protocol.precision):
            if _clear(values, profile):
                break
            to_the_end = True
    return blocks


def _precise(values: Sequence[FLOATS], precision: float) -> bool:
    series = [*values, *(other / values[0] for other in values[1:])]
    for numbers in series:
        low, high = median_bounds(numbers, PRECISION_ALPHA)
        if not (high - low) / 2 <= precision * float(np.median(numbers)):
            return False
    return True


def _clear(values: Sequence[FLOATS], profile: Profile) -> bool:
    """True when no latency budget lies inside the interval of the last artifact."""
    for budget in profile.budgets:
        if budget.metric != "latency_ms" or (budget.relative and len(values) == 1):
            continue
        low, high = median_bounds(values[-1] / values[0] if budget.relative else values[-1], profile.alpha)
        if low <= budget.limit <= high:
            return False
    return True


def _warm_up(process: MeterProcess) -> float:
    """Calls until at least `WARM_UP_SECONDS` and two blocks have gone by; the time of one call in seconds."""
    start, blocks, call_ms = time.monotonic(), 0, 1.0
    while blocks < 2 or time.monotonic() - start < WARM_UP_SECONDS:
        call_ms = float(np.median(process.block(max(2, min(50, int(50 / call_ms))), discard=1)))
        blocks += 1
    return call_ms / 1000


def _block_size(call_seconds: float, block_seconds: float) -> int:
    """At least 50 calls or 30 ms, whichever is more, but no more than 0.25 s or the block's share of the time."""
    wanted = max(50.0, 0.03 / call_seconds)
    affordable = max(5.0, min(0.25, block_seconds) / call_seconds)
    return max(2, int(min(wanted, affordable)))


def _feed(artifact: Artifact, example: Example | None, batch: int) -> dict[str, Array]:
    size = artifact.fixed_batch or batch
    if artifact.fixed_batch not in (None, batch):
        raise RuntimeFailureError(
            f"takes batches of {artifact.fixed_batch} only, the profile measures at {batch}.",
            where=str(artifact.path),
            hint="Export it with a free batch, or set protocol.batch.",
        )
    if example is not None:
        return align(example.with_batch(size).inputs, artifact.inputs, where="example inputs")
    return made_up_arrays(artifact.inputs, size)
