"""Contract Strategy: which plan is tried next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial


class Strategy(ABC):
    """A pure function of the search space and the journal, so that resuming needs no further code."""

    @abstractmethod
    def propose(self, search_space: SearchSpace, history: Sequence[Trial]) -> Plan | None:
        """The next plan, never one that is in `history` (claimed trials included); None when nothing is left."""
