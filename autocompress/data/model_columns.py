"""Chooses the columns of items that are mappings by the names that a model's `forward` takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autocompress.core.columns import Columns
from autocompress.core.padded_source import padded
from autocompress.core.source import ArraySource, DatasetSource, Inputs, Source
from autocompress.core.targets import Targets
from autocompress.core.task import Task
from autocompress.errors import DataError

FIELDS = ("test", "val", "train")


@dataclass(frozen=True)
class Arguments:
    """The arguments of a `forward`; `required` have no default, `others` says that it takes `**kwargs`.

    `of` is what has them in messages, and `called` what they are there: the arguments of `forward()`, the inputs of the
    file.
    """

    names: tuple[str, ...]
    required: tuple[str, ...] = ()
    others: bool = False
    of: str = "forward()"
    called: str = "arguments"

    @property
    def advice(self) -> str:
        """What to do where columns have other names."""
        return f"Name the columns as the {self.called} of {self.of}."


@dataclass(frozen=True, eq=False)
class _Selected:
    """A source of the user's own that gives the chosen inputs only."""

    source: Source
    takes: Callable[[str], bool]

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Targets]:
        """See `Source.read`."""
        inputs, targets = self.source.read(indices)
        return _chosen(inputs, self.takes) if isinstance(inputs, dict) else inputs, targets


def arguments_of(forward: Callable[..., Any]) -> Arguments:
    """The arguments of a function that is called by name; where they cannot be read it takes any."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return Arguments((), others=True)
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    return Arguments(
        tuple(one.name for one in named),
        tuple(one.name for one in named if one.default is one.empty),
        any(one.kind is one.VAR_KEYWORD for one in parameters),
    )


def for_model(task: Task | None, model: Any, inputs: Any = None) -> tuple[Task | None, tuple[str, ...]]:
    """The task with the columns that the model takes, and sentences about those that are left out.

    Example `inputs` that are a mapping say themselves what the model is called with.

    Raises:
        DataError: when no column gives an argument that `forward` needs, or one that it takes holds no numbers.
    """
    if isinstance(inputs, Mapping):
        return _with_columns(task, Arguments(tuple(map(str, inputs))))
    return _with_columns(task, arguments_of(model.forward))


def for_file(task: Task | None, names: Collection[str]) -> tuple[Task | None, tuple[str, ...]]:
    """The task with the columns that a file needs, and sentences about those that are left out.

    Raises:
        DataError: when no column gives an input, or one of them holds no numbers.
    """
    return _with_columns(task, Arguments(tuple(names), tuple(names), of="the file", called="inputs"))


def for_inputs(task: Task | None, names: Collection[str]) -> Task | None:
    """The task with the columns that an artifact takes.

    Raises:
        DataError: when one of them holds no numbers.
    """
    return _with_columns(task, Arguments(tuple(names)))[0]


def _with_columns(task: Task | None, arguments: Arguments) -> tuple[Task | None, tuple[str, ...]]:
    if task is None:
        return None, ()
    sources: dict[str, Any] = {}
    unknown: dict[str, None] = {}
    unused: dict[str, None] = {}
    for field in FIELDS:
        source = getattr(task, field)
        if source is None:
            continue
        try:
            chosen, left_out = _selected(source, arguments)
            sources[field] = padded(chosen)
        except DataError as error:
            raise DataError(error.message, where=f"{task.name}: {field}", hint=error.hint) from error
        for name in left_out:
            (unused if arguments.others or name in arguments.names else unknown)[name] = None
    sentences = []
    if unknown:
        sentences.append(f"Columns that {arguments.of} does not take are left out: {', '.join(unknown)}.")
    if unused:
        sentences.append(
            f"Columns that are targets or hold no numbers are not given to {arguments.of}: {', '.join(unused)}."
        )
    return replace(task, **sources), tuple(sentences)


def _selected(source: Source, arguments: Arguments) -> tuple[Source, list[str]]:
    """The source with the columns that are taken, and the names of those left out but for its targets."""
    columns = Columns((), frozenset(arguments.names), arguments.others)
    if isinstance(source, DatasetSource):
        names, targets = source.names()
        if not names:
            return source, []
        chosen: Source = replace(source, columns=replace(columns, targets=source.columns.targets))
    else:
        read = source.inputs if isinstance(source, ArraySource) else source.read([0])[0]
        if not isinstance(read, dict):
            return source, []
        names, targets = tuple(read), ()

        def takes(name: str) -> bool:
            return columns.takes(name, beside=True)

        if isinstance(source, ArraySource):
            chosen = replace(source, inputs=_chosen(read, takes))
        else:
            chosen = _Selected(source, takes)
    # a column that is missing is told by name, before what else there is may fail
    _require(arguments, [name for name in names if name not in targets], names)
    inputs, _ = chosen.read([0])
    if not inputs:
        raise DataError(
            f"has no column that the model takes; it takes {', '.join(arguments.names)}, "
            f"the columns are {', '.join(names)}.",
            where="data",
            hint=arguments.advice,
        )
    return chosen, [name for name in names if name not in (*inputs, *targets)]


def _require(arguments: Arguments, given: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in arguments.required if name not in given]
    if missing:
        is_target = missing[0] in names
        raise DataError(
            f"{arguments.of} needs {missing[0]!r}, which {'is the target' if is_target else 'no column gives'}; "
            f"it takes {', '.join(arguments.names)}, the columns are {', '.join(names)}.",
            where="data",
            hint="Give the argument a default, as the target is not fed to the model."
            if is_target
            else arguments.advice,
        )


def _chosen(inputs: Mapping[str, Any], takes: Callable[[str], bool]) -> dict[str, Any]:
    return {name: array for name, array in inputs.items() if takes(name)}
