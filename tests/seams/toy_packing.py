"""A finishing technique in one file: what is left in float32 is stored in two bytes, after or without quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.runtimes.onnx_file import compact, load_model, save_if_smaller


class ToyPacking(ArtifactTechnique):
    name: ClassVar[str] = "toy_packing"
    summary: ClassVar[str] = "floats that are left are stored in two bytes"
    stage: ClassVar[Stage] = Stage.PACKING
    effort: ClassVar[Effort] = Effort.NONE
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()
    value_bytes: ClassVar[int] = 2
    choices: ClassVar[tuple[Choice, ...]] = (Choice("least", (64,), describes="values that a tensor has to have"),)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        return "packed"

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        return SettingSpace(self.choices)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        return None

    def covers(self, facts: Facts) -> frozenset[Kind]:
        return frozenset(Kind)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        model = load_model(artifact.path)
        graph = model.graph
        casts = []
        for tensor in graph.initializer:
            values = numpy_helper.to_array(tensor)
            if tensor.data_type == TensorProto.FLOAT and values.size >= int(settings["least"]):
                name = tensor.name
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.packed"))
                casts.append(helper.make_node("Cast", [f"{name}.packed"], [name], to=TensorProto.FLOAT))
        nodes = list(graph.node)
        del graph.node[:]
        graph.node.extend([*casts, *nodes])
        return save_if_smaller(compact(model), artifact, context.folder, self.name)
