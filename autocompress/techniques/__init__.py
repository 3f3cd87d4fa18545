"""The techniques on the shelf, in the order in which the planner looks at them."""

from __future__ import annotations

from autocompress.technique import Technique
from autocompress.techniques.int8_dynamic import Int8Dynamic
from autocompress.techniques.int8_static import Int8Static

TECHNIQUES: tuple[type[Technique], ...] = (Int8Dynamic, Int8Static)

__all__ = ["TECHNIQUES", "Int8Dynamic", "Int8Static"]
