"""A finishing technique that fails in another way with each setting, and halves the file with the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.runtimes.onnx_file import load_model, save_model
from seams.crashing_backend import CRASHES
from seams.toy_packing import ToyPacking

FAULTS = ("session", "inference", "checker", "memory", "torch", "defect", "refused", "nan", "crash", "shape", "none")


class ToyFaults(ArtifactTechnique):
    name: ClassVar[str] = "toy_faults"
    summary: ClassVar[str] = "fails in every way"
    stage: ClassVar[Stage] = Stage.PACKING
    effort: ClassVar[Effort] = Effort.NONE
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()
    choices: ClassVar[tuple[Choice, ...]] = (Choice("fault", FAULTS, describes="how it fails"),)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        return f"fault {settings[0]['fault']}"

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        return SettingSpace(self.choices)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        return None

    def covers(self, facts: Facts) -> frozenset[Kind]:
        return frozenset(Kind)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        fault = str(settings["fault"])
        if fault == "session":
            onnxruntime.InferenceSession(b"no graph")
        if fault == "inference":
            raise onnx.shape_inference.InferenceError("the shapes contradict each other")
        if fault == "checker":
            onnx.checker.check_model(onnx.ModelProto())
        if fault == "memory":
            raise MemoryError
        if fault == "torch":
            torch.zeros(2, 3) @ torch.zeros(2, 3)
        if fault == "defect":
            return fault.no_such_attribute  # type: ignore[attr-defined]
        packed = ToyPacking().apply(artifact, {"least": 64}, context)
        if fault == "none":
            return packed
        model = load_model(packed.path)
        _spoil(model, fault)
        return save_model(model, context.folder / "spoilt.onnx")


def _spoil(model: onnx.ModelProto, fault: str) -> None:
    if fault == "crash":
        helper.set_model_props(model, {"note": CRASHES.decode()})
    elif fault == "refused":
        model.graph.node[-1].domain = "nowhere"
        model.opset_import.append(helper.make_opsetid("nowhere", 1))
    elif fault == "nan":
        tensor = next(one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT)
        tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), np.nan, dtype=np.float32), tensor.name))
    elif fault == "shape":
        # one class too few, which the labels show
        name = model.graph.output[0].name
        model.graph.node[-1].output[0] = "all"
        ends = {"from": [0], "to": [5], "axis": [1]}
        model.graph.initializer.extend(numpy_helper.from_array(np.array(at), key) for key, at in ends.items())
        model.graph.node.append(helper.make_node("Slice", ["all", *ends], [name]))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
