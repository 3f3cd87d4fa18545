"""The Python API: `autocompress`, `explain`, `sensitivity`, `apply_plan`, `resolve`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.core.output_kinds import Declared
from autocompress.core.plan import Plan, Setting
from autocompress.core.profile import Profile
from autocompress.core.search_space import SearchSpace
from autocompress.core.sensitivity import Sensitivity
from autocompress.report.files import write_files
from autocompress.report.frame import trials_frame
from autocompress.resolution.resolve import resolve_run
from autocompress.run.answer import Answer, History, write_up
from autocompress.run.confirm import confirm
from autocompress.run.escalation import conclude, search_and_confirm
from autocompress.run.layer_sensitivity import sensitivity_of, settings_for
from autocompress.run.result import Result
from autocompress.run.search import Search
from autocompress.run.setup import declared, open_run, tools_of
from autocompress.run.stages import (
    Planned,
    find_facts,
    measure_baseline,
    plan_space,
    take_probes,
    with_structure,
    with_training,
)
from autocompress.strategies import Bisection
from autocompress.system.locks import folder_lock
from autocompress.system.progress import Event, Progress, parse_duration, silent
from autocompress.system.scratch import scratch
from autocompress.system.workspace import DEFAULT_FOLDER

if TYPE_CHECKING:
    import torch

# seconds that planning without a run may take in all, roughly
PLANNING_SECONDS = 38.0
# seconds of these that structure gets in large networks, where the baseline and the probes took most of them
LEAST_SECONDS = 4.0
# longest measurement in seconds when there is only planning and no run
BRIEFLY = 2.5


def autocompress(
    model: torch.nn.Module | str | Path,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    outputs: str | Sequence[str] = (),
    dynamic: Any = None,
    output_kind: Declared = "",
    out: str | Path = DEFAULT_FOLDER,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    ignore: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    max_time: str | float | None = None,
    recipe: Any = None,
    resume: bool = False,
    named: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Result:
    """Find the cheapest measured compression plan that meets the profile's budgets, and write its file.

    Args:
        model: a trained module, or the path of an ONNX file; left as it is.
        profile: a YAML file, the name of a shipped profile, or a Profile.
        data: a Task, `(inputs, targets)` arrays, a Dataset, a DataLoader, a dict of `train`, `val`, `test` of
            these, or a data SPEC such as `digits`. Without data the accuracy stays unmeasured.
        inputs: example inputs where no data give them: an array or tensor with a batch axis, a tuple or dict of
            them, or a spec such as `1x3x32x32:float32`.
        outputs: names of the model's outputs that ship, in this order, or paths to several; all where it is left out.
        dynamic: axes that must be free in the file beside the batch: `{"input_ids": {1: "sequence"}}`, or `()` for
            none. Left out, axes of tokens, masks, features over time and audio are free where the model allows it.
        output_kind: what outputs are where their values do not tell, which decides how networks are compared: a word
            for the only output, or words by output name: `logits`, `multilabel_logits`, `probabilities`,
            `log_probabilities`, `sigmoid`, `masks`, `embedding`, `values`, `boxes`, `states`.
        out: the run's folder. What an earlier run left there moves to `previous/`.
        budgets: replace the profile's budgets of the same metrics: `{"latency_ms": "0.5x"}`.
        objective: replaces the profile's: `effort`, `latency`, `size`, `accuracy`, `serving_cost`.
        ignore: names of layers to leave alone, with all inside them, beside the profile's; `*` stands for anything.
        keep_float: names of layers that are not quantized, in the same way.
        max_time: `90s`, `20m`, `2h` or seconds, over all resumptions.
        recipe: how recovery trains: a TrainingRecipe, a dict of its fields, a function `train(module, teacher,
            batches)`, or a spec such as `file.py:callable` of one of these.
        resume: continue the run in `out`.
        named: how a program names its inputs (`{"data": "digits"}`), noted for `resolve` to find the data again.
        progress: called with an `Event` for each step of the work.

    Raises:
        AutocompressError: for bad input (exit code 2) and failures of device or runtime (4). Budgets that are
            not met are a value, not an exception.
    """
    target = declared(profile, budgets, objective, ignore, keep_float)
    progress(Event("baseline", "exporting the model"))
    run = open_run(
        model,
        target,
        data,
        inputs=inputs,
        outputs=outputs,
        dynamic=dynamic,
        output_kind=output_kind,
        out=out,
        max_time=max_time,
        recipe=recipe,
        resume=resume,
        named=named,
        progress=progress,
    )
    try:
        baseline = measure_baseline(run)
        facts = find_facts(run)
        probes = take_probes(run, facts)
        planned = plan_space(run, baseline, facts, probes)
        search = Search(run, planned.search_space, Bisection())
        planned, confirmations = search_and_confirm(search, planned, write_files)
        # the files of an answer belong together, and two workers may write theirs at the same time
        with folder_lock(run.workspace.root):
            return _written(conclude(search, planned, confirmations))
    finally:
        run.close()


def _written(result: Result) -> Result:
    write_files(result)
    return replace(result, trials=trials_frame(result.history, result.names))


def explain(
    model: torch.nn.Module | str | Path,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    outputs: str | Sequence[str] = (),
    dynamic: Any = None,
    output_kind: Declared = "",
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    ignore: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    recipe: Any = None,
    progress: Progress = silent,
) -> Planned:
    """Plan without a run: baseline, facts, probes and search space, within about a minute.

    Arguments as in `autocompress`.

    Raises:
        AutocompressError: for bad input and failures of device or runtime.
    """
    began = time.monotonic()
    target = declared(profile, budgets, objective, ignore, keep_float)
    brief = replace(target.protocol, max_seconds=min(BRIEFLY, target.protocol.max_seconds))
    with scratch("plan") as folder:
        run = open_run(
            model,
            replace(target, protocol=brief),
            data,
            inputs=inputs,
            outputs=outputs,
            dynamic=dynamic,
            output_kind=output_kind,
            out=folder,
            recipe=recipe,
            progress=progress,
        )
        try:
            baseline = measure_baseline(run)
            facts = find_facts(run)
            planned = plan_space(run, baseline, facts, take_probes(run, facts))
            if planned.fits or facts.is_file:
                return planned
            seconds = max(LEAST_SECONDS, PLANNING_SECONDS - (time.monotonic() - began))
            planned = with_structure(run, planned, seconds)
            if planned.search_space.out_of_reach:
                return planned
            nested = [recipe for recipe in planned.search_space.recipes if recipe.nested]
            expected = [recipe.structures[recipe.likely] for recipe in nested if recipe.likely is not None]
            return with_training(run, planned, None, structures=expected) or planned
        finally:
            run.close()


def sensitivity(
    model: torch.nn.Module | str | Path,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    technique: str = "int8_static",
    settings: Mapping[str, Setting] | None = None,
    inputs: Any = None,
    outputs: str | Sequence[str] = (),
    output_kind: Declared = "",
    keep_float: Sequence[str] = (),
    max_time: str | float | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Measure what quantizing each layer costs in accuracy, and leaving it in float in time and bytes.

    `settings` replace the technique's most promising ones. Other arguments as in `autocompress`.

    Raises:
        AutocompressError: for bad input, a technique that cannot leave layers in float, and failures of device or
            runtime.
    """
    seconds = parse_duration(max_time)
    with scratch("layers") as folder:
        run = open_run(
            model,
            declared(profile, keep_float=keep_float),
            data,
            inputs=inputs,
            outputs=outputs,
            output_kind=output_kind,
            out=folder,
            progress=progress,
        )
        try:
            chosen = settings_for(run, technique, find_facts(run), settings)
            return sensitivity_of(run, technique, chosen, seconds)
        finally:
            run.close()


def apply_plan(
    plan: Plan,
    model: torch.nn.Module | str | Path,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    outputs: str | Sequence[str] = (),
    dynamic: Any = None,
    output_kind: Declared = "",
    out: str | Path = DEFAULT_FOLDER,
    budgets: Mapping[str, float | str] | None = None,
    ignore: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    recipe: Any = None,
    progress: Progress = silent,
) -> Result:
    """Replay a plan and judge its file on the holdout; arguments as in `autocompress`.

    The same plan, model, data and thread count give the same bytes on the same machine. A plan that was trained by
    functions of a recipe needs them again.

    Raises:
        AutocompressError: for bad input, a plan that does not fit the model, and failures of device or runtime.
    """
    target = declared(profile, budgets, None, ignore, keep_float)
    tools_of(target).require_possible(plan)
    progress(Event("baseline", "exporting the model"))
    run = open_run(
        model,
        target,
        data,
        inputs=inputs,
        outputs=outputs,
        dynamic=dynamic,
        output_kind=output_kind,
        out=out,
        recipe=recipe,
        progress=progress,
    )
    try:
        baseline = measure_baseline(run)
        facts = find_facts(run)
        found = confirm(run, plan)
        answer = Answer(plan, found.artifact, found.measurement, found.verdict, found.certificate)
        return _written(write_up(run, answer, History(facts, SearchSpace((), {}), baseline, run.record.trials())))
    finally:
        run.close()


def resolve(
    folder: str | Path,
    *,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    data: Any = None,
    data_dir: Path | None = None,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Find the cheapest file of an earlier run that meets other budgets, within about a minute.

    Nothing is trained or built.

    Args:
        folder: the run's folder.
        budgets: replace the run's budgets of the same metrics; the others stay.
        objective: replaces the run's.
        data: the data of the run, as `autocompress` takes them. Left out, a built-in name or a `.npz` file that the
            run was started with is loaded again; code never is.
        data_dir: folder of torchvision's data sets.
        out: folder of the answer, by default one in `folder/resolved` that is named after the budgets.
        progress: called with an `Event` for each step of the work.

    Raises:
        AutocompressError: for a folder that holds no run (exit code 2), other data than the run's (2), and another
            machine (4). Budgets that are not met are a value, not an exception.
    """
    result = resolve_run(
        folder, budgets=budgets, objective=objective, data=data, data_dir=data_dir, out=out, progress=progress
    )
    return _written(result)
