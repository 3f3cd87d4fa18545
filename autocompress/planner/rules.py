"""Building blocks of the decision tree's rules: questions, answers, and what follows from each."""

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
    """All facts that the planner decides by.

    `baseline` is the verdict on the unchanged model; `figures` are its measured figures, None where they are not known.
    `looks` is the number of looks that were taken at the holdout so far. `no_inputs` says why no inputs can be made to
    take ranges from, where there are no data: empty where they can be, None where nobody asked.
    """

    facts: Facts
    probes: Probes
    profile: Profile
    task: Task | None
    baseline: Verdict
    figures: BaselineFigures | None = None
    looks: int = 0
    no_inputs: str | None = None


@dataclass(frozen=True)
class Effect:
    """The consequence of an answer.

    `refuses` tells which techniques are excluded, by what they need and never by their name. `usual` names techniques
    that are usual in such a case: those that are not registered are listed as not available. `finish` ends the tree
    with an empty search space, `warn` shows the sentence as a warning.
    """

    refuses: Callable[[Technique, Situation], bool] = lambda technique, situation: False
    usual: tuple[str, ...] = ()
    finish: bool = False
    warn: bool = False


@dataclass(frozen=True)
class Branch:
    """One answer to a question: the condition under which it holds, and a sentence on what follows."""

    answer: str
    holds: Callable[[Situation], bool]
    sentence: str
    effect: Effect = Effect()


@dataclass(frozen=True)
class Rule:
    """One question of the decision tree, with its possible answers.

    `found` gives the fact that answers it; the first of the branches that holds is the answer, and the last one always
    holds.
    """

    name: str
    question: str
    found: Callable[[Situation], str]
    branches: tuple[Branch, ...]
    source: str = ""

    def branch(self, situation: Situation) -> Branch:
        """The branch that is taken: the first one that holds."""
        return next(branch for branch in self.branches if branch.holds(situation))


def needs(effort: Effort) -> Callable[[Technique, Situation], bool]:
    """A condition that excludes techniques of this effort."""
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
    """A rule with the answers yes and no; the effect is that of yes.

    `condition` gives the answer and the fact that it rests on.
    """
    branches = (Branch("yes", lambda situation: condition(situation)[0], yes, effect), otherwise("no", no))
    return Rule(name, question, lambda situation: condition(situation)[1], branches, source)
