"""Probes: seconds of micro-measurement with the model's own dominant layers, on the profile's device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from autocompress.artifact import Artifact
from autocompress.device import Device
from autocompress.errors import ModelError, RuntimeFailureError, TechniqueError
from autocompress.facts import Facts, Kind, LayerFact
from autocompress.machine import Machine
from autocompress.measurement import Measurement
from autocompress.plan import Setting
from autocompress.probes import Probe, Probes
from autocompress.profile import Profile
from autocompress.runtime import Example, Runtime
from autocompress.scratch import scratch
from autocompress.source import ArraySource, whole
from autocompress.statistics import median_bounds
from autocompress.technique import ArtifactTechnique, Context
from autocompress.turns import working

PROBE_SECONDS = 0.5
CALIBRATION_ITEMS = 8
PROBE_ALPHA = 0.05
# larger layers would make the probe take longer than what it saves
MAX_LAYER_PARAMETERS = 20_000_000


def run_probes(
    facts: Facts,
    techniques: Sequence[ArtifactTechnique],
    runtime: Runtime,
    device: Device,
    profile: Profile,
    machine: Machine,
    said: Callable[[str], None] = lambda sentence: None,
) -> Probes:
    """Each technique's probed settings on chains of the model's dominant layers, against float.

    Weights and inputs are random: time depends on shapes and types alone. A setting that the runtime or the
    technique cannot do on these layers is kept with its failure.
    """
    layers = [layer for layer in facts.dominant() if layer.parameters <= MAX_LAYER_PARAMETERS]
    chains, inputs = _chains(layers)
    dot_product = "int8_dot_product" in machine.features
    if not chains:
        return Probes((), (), dot_product)
    generator = np.random.default_rng(0)
    items = {
        name: generator.standard_normal((CALIBRATION_ITEMS, *shape)).astype(np.float32)
        for name, shape in inputs.items()
    }
    example = Example({name: array[:1] for name, array in items.items()})
    part = whole("random values", ArraySource(dict(items), np.zeros(CALIBRATION_ITEMS, dtype=np.int64)))
    with scratch("probe") as folder:
        try:
            with working():
                float_artifact = runtime.export(_Chains(chains), example, folder / "float.onnx")
        except ModelError as error:
            failed = tuple(Probe(t.name, s, None, failure=error.message) for t in techniques for s in t.probed)
            return Probes(failed, tuple(layer.name for layer in layers), dot_product)
        found = []
        for technique in techniques:
            said(f"probing {technique.name} on {len(chains)} kinds of layers")
            context = Context(None, example, part, folder)
            found += _probe(technique, float_artifact, context, device, profile)
    return Probes(tuple(found), tuple(layer.name for layer in layers), dot_product)


def _probe(
    technique: ArtifactTechnique, baseline: Artifact, context: Context, device: Device, profile: Profile
) -> list[Probe]:
    defaults = {choice.name: choice.options[0] for choice in technique.choices}
    if "convolutions" in defaults:
        # what the technique does to convolutions is what the probe asks
        defaults["convolutions"] = True
    built: list[tuple[int, Artifact]] = []
    probes: list[Probe] = []
    for place, settings in enumerate(technique.probed):
        folder = context.folder / f"{technique.name}-{place}"
        folder.mkdir()
        inside = Context(context.task, context.example, context.calibrating, folder)
        try:
            with working():
                built.append((place, technique.apply(baseline, {**defaults, **settings}, inside)))
            probes.append(Probe(technique.name, settings, None))
        except (TechniqueError, RuntimeFailureError) as error:
            probes.append(Probe(technique.name, settings, None, failure=error.message))
    artifacts = [artifact for _, artifact in built]
    # the budgets are the model's, not the probe's: no need to measure until they are decided
    profile = replace(profile, budgets=())
    pairs: list[tuple[Measurement, Measurement] | RuntimeFailureError]
    try:
        measured = device.measure([baseline, *artifacts], profile, context.example, PROBE_SECONDS * (1 + len(built)))
        pairs = [(measured[0], after) for after in measured[1:]]
    except RuntimeFailureError:
        # one that fails in the runtime must not hide the others
        pairs = [_pair(baseline, artifact, context, device, profile) for artifact in artifacts]
    for (place, artifact), pair in zip(built, pairs, strict=True):
        size_ratio = artifact.size_bytes / baseline.size_bytes
        probes[place] = _compare(technique.name, technique.probed[place], pair, size_ratio)
    return probes


def _pair(
    baseline: Artifact, artifact: Artifact, context: Context, device: Device, profile: Profile
) -> tuple[Measurement, Measurement] | RuntimeFailureError:
    try:
        before, after = device.measure([baseline, artifact], profile, context.example, PROBE_SECONDS)
    except RuntimeFailureError as error:
        return error
    return before, after


def _compare(
    technique: str,
    settings: Mapping[str, Setting],
    pair: tuple[Measurement, Measurement] | RuntimeFailureError,
    size_ratio: float,
) -> Probe:
    if isinstance(pair, RuntimeFailureError):
        return Probe(technique, settings, None, failure=pair.message)
    before, after = (side.readings["latency_ms"].block_statistic("p50") for side in pair)
    ratios = after / before
    low, high = median_bounds(ratios, PROBE_ALPHA)
    return Probe(
        technique,
        settings,
        float(np.median(ratios)),
        low if np.isfinite(low) else float(ratios.min()),
        high if np.isfinite(high) else float(ratios.max()),
        size_ratio,
    )


class _Chains(nn.Module):
    """Chains of layers side by side, each with an input of its own, named as in the example."""

    def __init__(self, chains: dict[str, nn.Module]) -> None:
        super().__init__()
        self.chains = nn.ModuleDict(chains)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """One output per chain."""
        return {f"{name}_out": chain(inputs[name]) for name, chain in self.chains.items()}


class _Residual(nn.Module):
    """Two convolutions and the addition around them: some int8 types are fast in one and slow in the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Same shape as `values`."""
        return torch.relu(values + self.second(torch.relu(self.first(values))))


class _FirstOutput(nn.Module):
    """A recurrent layer's sequence without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The sequence."""
        result: torch.Tensor = self.layer(values)[0]
        return result


def _chains(layers: Sequence[LayerFact]) -> tuple[dict[str, nn.Module], dict[str, tuple[int, ...]]]:
    """A chain per layer: there, back and there again, so that most tensors pass from layer to layer as in the
    model and not from or to float."""
    chains: dict[str, nn.Module] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    generator = torch.random.get_rng_state()
    torch.manual_seed(0)
    for place, layer in enumerate(layers):
        chain = _chain(layer)
        if chain is not None:
            chains[f"layer{place}"] = chain
            inputs[f"layer{place}"] = layer.input_shape
    torch.random.set_rng_state(generator)
    return chains, inputs


def _chain(layer: LayerFact) -> nn.Module | None:
    detail = layer.detail
    if layer.type == "Conv2d" and len(layer.input_shape) == 3:
        kernel, groups = detail["kernel"], detail["groups"]

        def convolution(source: int, target: int, stride: int = 1) -> nn.Module:
            padding = "same" if stride == 1 else kernel // 2
            return nn.Conv2d(source, target, kernel, stride, padding, groups=groups)

        there, back = (detail["in"], detail["out"]), (detail["out"], detail["in"])
        if detail["stride"] > 1:
            return nn.Sequential(convolution(*there, stride=detail["stride"]), nn.ReLU(), convolution(*back), nn.ReLU())
        if there[0] == there[1]:
            return _Residual(convolution(*there), convolution(*there))
        return nn.Sequential(convolution(*there), nn.ReLU(), convolution(*back), nn.ReLU(), convolution(*there))
    if layer.kind is Kind.LINEAR and layer.type == "Linear" and layer.input_shape:
        wide, narrow = detail["in"], detail["out"]
        layers = (nn.Linear(wide, narrow), nn.ReLU(), nn.Linear(narrow, wide), nn.ReLU(), nn.Linear(wide, narrow))
        return nn.Sequential(*layers)
    types: dict[str, type[nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
    recurrent = types.get(layer.type)
    if recurrent is not None and len(layer.input_shape) == 2:
        return _FirstOutput(recurrent(detail["in"], detail["out"], batch_first=True))
    return None
