"""Contract Strategy: which plan is tried next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial


class Strategy(ABC):
    """Decides which plan is tried next, as a pure function of search space and history.

    So resuming a run needs no further code.
    """

    @abstractmethod
    def propose(self, search_space: SearchSpace, history: Sequence[Trial]) -> Plan | None:
        """The next plan to try; None when nothing is left.

        It is never one that is in `history` (claimed trials included).
        """
