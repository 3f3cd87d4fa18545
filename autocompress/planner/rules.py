"""What the decision tree's rules are made of: a question, its answers, and what follows from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autocompress.analysis.prediction import BaselineFigures
from autocompress.core.facts import Facts
from autocompress.core.plan import Effort
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.task import Task
from autocompress.core.technique import Technique
from autocompress.core.verdict import Verdict


@dataclass(frozen=True, eq=False)
class Situation:
    """All that the planner knows before it decides. `baseline` judges the model as it is; `figures` are what was
    measured of it, None where that is not known."""

    facts: Facts
    probes: Probes
    profile: Profile
    task: Task | None
    baseline: Verdict
    figures: BaselineFigures | None = None


@dataclass(frozen=True)
class Effect:
    """What follows from an answer.

    `refuses` tells which techniques are kept out, by what they need and never by their name. `usual` names what people
    use in such a case: what is not on the shelf is called not available. `finish` ends the tree with an empty search
    space, `warn` shows the sentence beside it.
    """

    refuses: Callable[[Technique, Situation], bool] = lambda technique, situation: False
    usual: tuple[str, ...] = ()
    finish: bool = False
    warn: bool = False


@dataclass(frozen=True)
class Branch:
    """An answer, when it holds, and the sentence that says what follows."""

    answer: str
    holds: Callable[[Situation], bool]
    sentence: str
    effect: Effect = Effect()


@dataclass(frozen=True)
class Rule:
    """One question. `found` says by what it is answered; the first of the branches that holds is the answer, and the
    last one always does."""

    name: str
    question: str
    found: Callable[[Situation], str]
    branches: tuple[Branch, ...]
    source: str = ""

    def branch(self, situation: Situation) -> Branch:
        """The branch that is taken."""
        return next(branch for branch in self.branches if branch.holds(situation))


def needs(effort: Effort) -> Callable[[Technique, Situation], bool]:
    """Keeps out techniques of this effort."""
    return lambda technique, situation: technique.effort is effort


def otherwise(answer: str, sentence: str, effect: Effect = Effect()) -> Branch:
    """The branch that is taken where no other holds."""
    return Branch(answer, lambda situation: True, sentence, effect)


def yes_or_no(
    name: str,
    question: str,
    condition: Callable[[Situation], tuple[bool, str]],
    effect: Effect,
    yes: str,
    no: str,
    source: str = "",
) -> Rule:
    """A rule with two branches; the effect is that of yes. `condition` answers it and says what it found."""
    branches = (Branch("yes", lambda situation: condition(situation)[0], yes, effect), otherwise("no", no))
    return Rule(name, question, lambda situation: condition(situation)[1], branches, source)
