"""Contract Strategy: which plan is tried next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from autocompress.core.plan import Plan
from autocompress.core.search_space import Ladder
from autocompress.core.trial import Trial


class Strategy(ABC):
    """A pure function of the ladder and the journal, so that resuming needs no further code."""

    @abstractmethod
    def propose(self, ladder: Ladder, history: Sequence[Trial]) -> Plan | None:
        """The next plan, never one that is in `history` (claimed trials included); None when nothing is left."""
