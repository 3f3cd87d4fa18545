"""Probe of the channel multiple: which layer widths the target device computes efficiently.

The network's dominant layer is timed at widths that are multiples of 4, 8 and 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.device import Device
from autocompress.core.dynamic_axes import ALL_FIXED
from autocompress.core.facts import Facts, LayerFact
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, Runtime, exported
from autocompress.errors import ENDS_THE_RUN, AutocompressError, RuntimeFailureError, raised_as
from autocompress.system.scratch import scratch

MULTIPLES = (4, 8, 16)
# share of the time expected from the saved MACs that a narrower width really has to save
WORTH = 0.5
COPIES = 4
# most seconds of measuring for each width, and their share of the profile's limit for a measurement
SECONDS_EACH = 0.5
SHARE_EACH = 0.2

Finish = Callable[[Artifact, Example, Path], Artifact]


def probe_multiple(facts: Facts, finish: Finish, runtime: Runtime, device: Device, profile: Profile) -> int:
    """The smallest multiple of channels at which removing channels reduces latency, 16 when none does.

    Microbenchmarks of the layer with most MACs are measured after `finish`, the artifact steps that the deployed file
    will get: for each multiple at about three quarters of the layer's width, and one multiple wider. Kernels process 4,
    8, 16 or more channels at a time: a width in between costs as much as the next multiple, or more.
    """
    layer = next((one for one in facts.dominant() if _can_be_narrowed(one)), None)
    if layer is None:
        return MULTIPLES[-1]
    widths = {multiple: _width(layer.detail["out"], multiple) for multiple in MULTIPLES}
    tried = {multiple: width for multiple, width in widths.items() if width}
    wanted = sorted({width + step for multiple, width in tried.items() for step in (0, multiple)})
    inputs = np.random.default_rng(0).standard_normal((8, *layer.input_shape)).astype(np.float32)
    example = Example((inputs[:1],), dynamic=ALL_FIXED)
    with scratch("multiple") as folder:
        try:
            artifacts = [
                finish(_exported(layer, width, runtime, example, folder / str(width)), example, folder / str(width))
                for width in wanted
            ]
            quiet = replace(profile, budgets=())
            each = min(SECONDS_EACH, SHARE_EACH * profile.protocol.max_seconds)
            with raised_as(RuntimeFailureError, "device"):
                measured = device.measure(artifacts, quiet, example, each * len(artifacts))
        except ENDS_THE_RUN:
            raise
        except AutocompressError:
            # a microbenchmark that cannot be built or run gives no information: the largest multiple is safe
            return MULTIPLES[-1]
    times = (float(np.median(one.readings["latency_ms"].load_statistic("p50"))) for one in measured)
    latency = dict(zip(wanted, times, strict=True))
    for multiple, width in tried.items():
        if latency[width] <= latency[width + multiple] * (1 - WORTH * multiple / (width + multiple)):
            return multiple
    return MULTIPLES[-1]


def _can_be_narrowed(layer: LayerFact) -> bool:
    plain = layer.type in ("Conv2d", "Linear") and layer.detail.get("groups", 1) == 1
    return plain and layer.detail["out"] >= 2 * MULTIPLES[0] and len(layer.input_shape) in (1, 3)


def _width(channels: int, multiple: int) -> int:
    """The largest width of at most three quarters of `channels` that is a multiple of `multiple`.

    It is a multiple of no wider entry of `MULTIPLES`. 0 when there is no such width.
    """
    widths = range(multiple, int(0.75 * channels) + 1, multiple)
    odd = [width for width in widths if multiple == MULTIPLES[-1] or width % (2 * multiple)]
    return max(odd, default=0)


def _exported(layer: LayerFact, width: int, runtime: Runtime, example: Example, folder: Path) -> Artifact:
    folder.mkdir()
    return exported(runtime, _microbenchmark(layer, width).eval(), example, folder / "float.onnx")


def _microbenchmark(layer: LayerFact, width: int) -> nn.Module:
    entering = layer.input_shape[0]
    if layer.type == "Linear":
        return nn.Sequential(
            nn.Linear(entering, width), nn.ReLU(), *_repeated(lambda: (nn.Linear(width, width), nn.ReLU()))
        )
    kernel = layer.detail["kernel"]
    first = nn.Conv2d(entering, width, kernel, layer.detail["stride"], kernel // 2)
    return nn.Sequential(
        first, nn.ReLU(), *_repeated(lambda: (nn.Conv2d(width, width, kernel, padding=kernel // 2), nn.ReLU()))
    )


def _repeated(make: Callable[[], tuple[nn.Module, ...]]) -> list[nn.Module]:
    return [part for _ in range(COPIES) for part in make()]
