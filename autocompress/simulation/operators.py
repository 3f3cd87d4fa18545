"""The table of operators that the simulation covers."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.simulation.elementwise import ELEMENTWISE
from autocompress.simulation.integer_operators import DYNAMIC
from autocompress.simulation.integer_recurrent import INTEGER_RECURRENT
from autocompress.simulation.layers import LAYERS
from autocompress.simulation.node_call import Operator
from autocompress.simulation.recurrent import RECURRENT
from autocompress.simulation.reductions import REDUCTIONS
from autocompress.simulation.shapes import SHAPES
from autocompress.simulation.windows import WINDOWS

OPERATORS: Mapping[str, Operator] = {**ELEMENTWISE, **REDUCTIONS, **SHAPES, **LAYERS, **WINDOWS, **RECURRENT, **DYNAMIC}
# operators of onnxruntime's own domain
OF_RUNTIME: Mapping[str, Operator] = {**INTEGER_RECURRENT}
