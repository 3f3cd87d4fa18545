"""Profiles: the device, the runtime, how to measure, and the budgets.

They are read from YAML; unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autocompress.core.artifact import TensorSpec
from autocompress.core.budget import METRICS, Budget, GateRule, merge
from autocompress.core.machine import Fingerprint, Machine
from autocompress.core.objective import EFFORT, OBJECTIVES, Objective
from autocompress.core.profile_inputs import InputSet, by_name, names_of, parse_inputs, sets_of
from autocompress.core.profile_inputs import to_json as inputs_to_json
from autocompress.errors import AutocompressError, ProfileError, nearest

Statistic = Literal["p50", "mean", "p90", "p95", "p99"]
Severity = Literal["error", "warn", "off"]
OnUndecided = Literal["fail", "warn"]
Items = Literal["as_needed", "all"]
# how the file is sent to the device: compressed with zstd, or as the entropy-coded file `model.onnx.acz`
Download = Literal["zstd", "acz"]
DeviceClass = Literal["server", "desktop", "edge", "mobile"]


@dataclass(frozen=True)
class DeviceProfile:
    """The device: how to reach it, its facts, and its fingerprint. No fingerprint means any machine."""

    connection: str = "local"
    device_class: str = "server"
    arch: str | None = None
    cpu: str = ""
    cores: int | None = None
    memory_mb: int | None = None
    features: tuple[str, ...] = ()
    fingerprint: Fingerprint | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True)
class RuntimeProfile:
    """The runtime that will run the artifact. `options` are the runtime's own session settings."""

    name: str = "onnxruntime"
    threads: int = 1
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How latency is measured and accuracy is confirmed.

    The `statistic` of a call at `batch` is measured until the interval's half width is within `precision` (a share) of
    the value or clear of the budget, for at most `max_seconds`. Throughput is measured while `streams` callers call at
    the same time, each with a batch. `items`: accuracy is confirmed on as many items as it
    takes (`as_needed`) or on `all`.
    """

    batch: int = 1
    streams: int = 1
    statistic: str = "p50"
    precision: float = 0.02
    max_seconds: float = 15.0
    items: str = "as_needed"


@dataclass(frozen=True)
class Profile:
    """Everything that is declared about the target.

    `inputs` are the shapes that files are timed at, and that the model is called with where nothing else says so. Where
    several sets of shapes are given it is the largest, and `smaller_inputs` are the others, the smallest first; budgets
    on what is timed hold at each. Layers of the model that are in `ignore` are left alone, those in `keep_float` are
    not quantized; see `autocompress.core.layer_patterns` for how they are named. `download`: what `download_mb` is the
    size of, the file compressed with `zstd`, or its entropy-coded form (`acz`), which runs then write as well.
    """

    name: str
    device: DeviceProfile = DeviceProfile()
    runtime: RuntimeProfile = RuntimeProfile()
    protocol: Protocol = Protocol()
    budgets: tuple[Budget, ...] = ()
    objective: Objective = EFFORT
    confidence: float = 0.95
    rules: Mapping[str, GateRule] = field(default_factory=dict)
    inputs: InputSet = ()
    smaller_inputs: tuple[InputSet, ...] = ()
    description: str = ""
    sources: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    download: str = "zstd"

    @property
    def alpha(self) -> float:
        """The error probability of one verdict, 1 - confidence."""
        return 1.0 - self.confidence

    def at_level(self, alpha: float) -> Profile:
        """The profile with another error probability of one verdict."""
        return replace(self, confidence=1.0 - alpha)

    def rule(self, metric: str) -> GateRule:
        """How the CI gate treats the metric's budget."""
        return self.rules.get(metric, GateRule())

    def limits(self, *metrics: str) -> bool:
        """True when one of `metrics` has a budget."""
        return any(budget.metric in metrics for budget in self.budgets)

    def with_budgets(self, budgets: Sequence[Budget]) -> Profile:
        """The profile with the budgets of the same metrics replaced; the others stay.

        A limit on the loss of score replaces one in points of accuracy: a score that is limited like this hardly ever
        has points.
        """
        in_scores = any(budget.metric == "max_score_drop" for budget in budgets)
        kept = [b for b in self.budgets if not (in_scores and b.metric == "max_accuracy_drop_pp")]
        return replace(self, budgets=merge(kept, budgets))

    @property
    def input_sets(self) -> Mapping[str, InputSet]:
        """The sets of shapes that files are timed at, by name, the smallest first; see `names_of`.

        A single set has the empty name, without shapes it is empty as well.
        """
        sets = (*self.smaller_inputs, self.inputs)
        return dict(zip(names_of(sets), sets, strict=True))

    def with_inputs(self, inputs: Sequence[TensorSpec]) -> Profile:
        """The profile with the shapes of these inputs replaced; the others stay.

        An input that is given several times has several shapes.

        Raises:
            ProfileError: when two inputs have several shapes, and not equally many.
        """
        if not inputs:
            return self
        own = [by_name(one_set) for one_set in self.input_sets.values()]
        names = dict.fromkeys(name for one in own for name in one)
        shapes = {name: [shape for one in own for shape in one.get(name, ())] for name in names}
        single = {name: ones if len(set(ones)) > 1 else ones[:1] for name, ones in shapes.items()}
        return self.with_input_sets(sets_of({**single, **by_name(inputs)}))

    def with_input_sets(self, sets: Sequence[InputSet]) -> Profile:
        """The profile with these sets of shapes, the smallest first."""
        return replace(self, inputs=sets[-1] if sets else (), smaller_inputs=tuple(sets[:-1]))

    def with_objective(self, objective: str | None) -> Profile:
        """The profile with another objective.

        Raises:
            ProfileError: when it is not one of `OBJECTIVES`.
        """
        return self if objective is None else replace(self, objective=_objective(objective))

    @property
    def in_float(self) -> tuple[str, ...]:
        """Patterns of the layers that are not quantized."""
        return (*self.keep_float, *self.ignore)

    def with_layers(self, ignore: Sequence[str], keep_float: Sequence[str]) -> Profile:
        """The profile with more layers to ignore or to keep in float.

        Raises:
            ProfileError: when one text was given in place of several.
        """
        for where, names in (("ignore", ignore), ("keep_float", keep_float)):
            if isinstance(names, str):
                raise ProfileError("is one text.", where=where, hint="Give a list of names.")
        both = [tuple(dict.fromkeys(names)) for names in ((*self.ignore, *ignore), (*self.keep_float, *keep_float))]
        return replace(self, ignore=both[0], keep_float=both[1])

    def to_json(self) -> dict[str, Any]:
        """The profile as the content of a profile file; `parse_profile` reads it."""
        device = asdict(self.device)
        device["class"] = device.pop("device_class")
        runtime = self.runtime
        return {
            "name": self.name,
            "description": self.description,
            "device": device,
            "runtime": {"name": runtime.name, "threads": runtime.threads, "options": dict(runtime.options)},
            "protocol": asdict(self.protocol),
            "budgets": {b.metric: self._budget_to_json(b) for b in self.budgets},
            "objective": self.objective.name,
            "confidence": self.confidence,
            "inputs": inputs_to_json([one_set for one_set in self.input_sets.values() if one_set]),
            "sources": list(self.sources),
            "ignore": list(self.ignore),
            "keep_float": list(self.keep_float),
            "download": self.download,
        }

    def _budget_to_json(self, budget: Budget) -> Any:
        limit = f"{budget.limit!r}x" if budget.relative else budget.limit
        rule = self.rules.get(budget.metric)
        return limit if rule is None else {"limit": limit, **vars(rule)}


# what a value should be, by the kind of pydantic's error
FORMS = {
    "dict_type": "should be keys with values, such as {size_mb: 0.5x}",
    "model_type": "should be keys with values",
    "tuple_type": "should be a list, such as [fc, head.*]",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "int_type": "should be a whole number",
}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


class _FingerprintFile(_File):
    arch: str | None = None
    cpu_model: str | None = None
    board: str | None = None
    cores: int | None = Field(None, ge=1)
    min_memory_mb: int | None = Field(None, ge=1)
    features: tuple[str, ...] = ()


class _DeviceFile(_File):
    connection: str = Field("local", min_length=1)
    device_class: DeviceClass = Field("server", alias="class")
    arch: str | None = None
    cpu: str = ""
    cores: int | None = Field(None, ge=1)
    memory_mb: int | None = Field(None, ge=1)
    features: tuple[str, ...] = ()
    fingerprint: _FingerprintFile | None = None
    price_per_hour: float | None = Field(None, gt=0)


class _RuntimeFile(_File):
    name: str = Field("onnxruntime", min_length=1)
    threads: int = Field(1, ge=1, le=1024, strict=True)
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)


class _ProtocolFile(_File):
    batch: int = Field(1, ge=1, strict=True)
    streams: int = Field(1, ge=1, le=1024, strict=True)
    statistic: Statistic = "p50"
    precision: float = Field(0.02, gt=0, lt=1)
    max_seconds: float = Field(15.0, gt=0)
    items: Items = "as_needed"


class _BudgetFile(_File):
    limit: float | str
    severity: Severity = "error"
    on_undecided: OnUndecided = "fail"
    message: str = ""


class _ProfileFile(_File):
    name: str = Field(min_length=1)
    description: str = ""
    device: _DeviceFile = _DeviceFile()
    runtime: _RuntimeFile = _RuntimeFile()
    protocol: _ProtocolFile = _ProtocolFile()
    budgets: dict[str, Any] = Field(default_factory=dict)
    objective: str = EFFORT.name
    confidence: float = Field(0.95, gt=0.5, lt=1)
    inputs: Any = ()
    sources: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    download: Download = "zstd"


def shipped_profiles() -> dict[str, Path]:
    """Files of the profiles that come with the package, by name."""
    package = Path(__file__).parents[1]
    # inside a wheel they are package data; in a checkout they stand beside the package
    folder = next((f for f in (package / "profiles", package.parent / "profiles") if f.is_dir()), package)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_profile(source: str | Path | Profile) -> Profile:
    """A profile from a file, or a shipped profile by its name (`local`).

    Raises:
        ProfileError: when there is no such profile, it is not YAML, or a key or value is not allowed.
    """
    if isinstance(source, Profile):
        return source
    path = Path(source)
    if not _exists(path):
        shipped = shipped_profiles()
        if str(source) not in shipped:
            raise ProfileError(
                "there is no such profile.",
                where=str(source),
                hint=f"Give a YAML file or one of: {', '.join(shipped)}.",
            )
        path = shipped[str(source)]
    return parse_profile(_read_yaml(path), where=str(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text that no file system accepts as a file name
        return False


def parse_profile(data: Any, where: str) -> Profile:
    """A profile from the content of a file.

    Raises:
        ProfileError: when a key or value is not allowed; an unknown key is answered with the nearest known one.
    """
    if not isinstance(data, Mapping):
        hint = "Write at least name: and budgets:, or give the name of a shipped profile."
        raise ProfileError("is not a profile: expected keys and values.", where=where, hint=hint)
    try:
        file = _ProfileFile.model_validate(data)
    except ValidationError as error:
        raise _explain(error, where) from None
    try:
        return _from_file(file)
    except AutocompressError as error:
        raise ProfileError(error.message, where=f"{where}: {error.where}", hint=error.hint) from None


def detected_profile(machine: Machine, name: str) -> str:
    """The YAML text of a profile that fits this machine alone, with the budgets of `local`."""
    local = load_profile("local")
    content = {
        "name": name,
        "description": f"{machine}.",
        "device": {
            "connection": "local",
            "class": "server",
            "arch": machine.arch,
            "cpu": machine.cpu_model,
            "cores": machine.cores,
            "memory_mb": machine.memory_mb,
            "features": list(machine.features),
            "fingerprint": {
                "arch": machine.arch,
                "cpu_model": machine.cpu_model or None,
                "board": machine.board or None,
                "cores": machine.cores,
                "features": list(machine.features),
            },
        },
        "runtime": {"name": local.runtime.name, "threads": 1},
        "protocol": {"batch": 1, "statistic": "p50", "precision": 0.02, "max_seconds": 15},
        "budgets": {
            budget.metric: f"{budget.limit:g}x" if budget.relative else budget.limit for budget in local.budgets
        },
        "objective": local.objective.name,
        "confidence": local.confidence,
    }
    return "# Written by `autocompress profile detect`.\n" + yaml.safe_dump(content, sort_keys=False)


def _objective(name: str) -> Objective:
    if name not in OBJECTIVES:
        raise ProfileError(f"{name!r} is not an objective.", where="objective", hint=f"Known: {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[name]


def _from_file(file: _ProfileFile) -> Profile:
    for metric in file.budgets:
        if metric not in METRICS:
            raise ProfileError(
                f"there is no budget named {metric!r}.", where=f"budgets.{metric}", hint=nearest(metric, METRICS)
            )
    if file.device.fingerprint is not None and not any(file.device.fingerprint.model_dump().values()):
        raise ProfileError(
            "is empty and would fit any machine.", where="device.fingerprint", hint="State a fact, or leave it out."
        )
    budgets, rules = _budgets(file.budgets)
    device = file.device.model_dump()
    fingerprint = device.pop("fingerprint")
    options = {key: _option_text(value) for key, value in file.runtime.options.items()}
    profile = Profile(
        name=file.name,
        device=DeviceProfile(**device, fingerprint=Fingerprint(**fingerprint) if fingerprint else None),
        runtime=RuntimeProfile(file.runtime.name, file.runtime.threads, options),
        protocol=Protocol(**file.protocol.model_dump()),
        budgets=budgets,
        rules=rules,
        objective=_objective(file.objective),
        confidence=file.confidence,
        description=file.description,
        sources=file.sources,
        ignore=file.ignore,
        keep_float=file.keep_float,
        download=file.download,
    )
    return profile.with_input_sets(parse_inputs(file.inputs))


def _budgets(given: Mapping[str, Any]) -> tuple[tuple[Budget, ...], dict[str, GateRule]]:
    """The budgets that are not switched off, and the gate rules of those that have some."""
    found, rules = [], {}
    for metric, value in given.items():
        limit = value
        if isinstance(value, Mapping):
            try:
                entry = _BudgetFile.model_validate(value)
            except ValidationError as error:
                raise _explain(error, f"budgets.{metric}", _BudgetFile) from None
            limit = entry.limit
            rules[metric] = GateRule(entry.severity, entry.on_undecided, entry.message)
        budget = Budget.parse(metric, limit)
        if metric not in rules or rules[metric].severity != "off":
            found.append(budget)
    return merge((), found), {metric: rule for metric, rule in rules.items() if rule.severity != "off"}


def _option_text(value: str | float | bool) -> str:
    # session options are texts; YAML reads 0 and true as numbers and booleans
    return str(int(value)) if isinstance(value, bool) else str(value)


class _UniqueKeys(yaml.SafeLoader):
    """A safe YAML loader in which a repeated key is an error, instead of silently taking the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        raise ProfileError("is not a file.", where=str(path), hint="Give the YAML file of a profile.")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"cannot be read ({error}).", where=str(path)) from None
    except ValueError as error:
        raise ProfileError(f"is not YAML ({error}).", where=str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "malformed"
        hint = "Indent with spaces." if "\t" in str(problem).encode().decode("unicode_escape") else ""
        raise ProfileError(f"is not YAML ({problem}).", where=line, hint=hint) from None


def _explain(error: ValidationError, where: str, model: type[BaseModel] = _ProfileFile) -> ProfileError:
    # a misspelt key is also a missing one; the spelling is the better advice
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        wrong = str(first["loc"][-1])
        hint = nearest(wrong, _keys_at(model, first["loc"][:-1]))
        if wrong in METRICS and model is _ProfileFile:
            hint = f"It is a budget: write it below budgets:, as budgets: {{{wrong}: ...}}."
        return ProfileError(f"there is no key {first['loc'][-1]!r}.", where=f"{where}: {key}", hint=hint)
    if first["type"] == "missing":
        return ProfileError("is missing.", where=f"{where}: {key}", hint=f"Add {first['loc'][-1]}: to it.")
    # pydantic's names of types are Python's, not YAML's
    said = FORMS.get(first["type"], first["msg"].removeprefix("Input ").removeprefix("Value "))
    return ProfileError(f"{said}, not {first['input']!r}.", where=f"{where}: {key}")


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return [entry.alias or name for name, entry in model.model_fields.items()]
