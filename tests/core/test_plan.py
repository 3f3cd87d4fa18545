import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autocompress.core.plan import FINISH_STAGES, ROUND_STAGES, Plan, Setting, Stage, Step
from autocompress.errors import PlanError

ROOT = Path(__file__).resolve().parents[2]
PRUNE = Step("prune", Stage.STRUCTURE, {"share": 0.5, "rule": "norm"})
SPARSE = Step("sparse", Stage.WEIGHTS, {"share": 0.8})
DISTILL = Step("distill", Stage.RECOVERY, {"steps": 100, "batch": 64, "seed": 7})
INT8 = Step("int8_static", Stage.PRECISION, {"activations": "uint8", "per_channel": True})
PACK = Step("codebook", Stage.PACKING, {"bits": 4})
FULL = Plan(((PRUNE, SPARSE, DISTILL), (PRUNE, DISTILL)), (INT8, PACK))

TEXTS = st.text(st.characters(codec="utf-8"), max_size=15)
SETTINGS = st.dictionaries(
    TEXTS,
    st.one_of(TEXTS, st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    max_size=4,
)


@st.composite
def parts(draw: st.DrawFn, stages: tuple[Stage, ...], least: int = 0) -> tuple[Step, ...]:
    chosen = sorted(draw(st.lists(st.sampled_from(stages), min_size=least, max_size=4)), key=stages.index)
    assume(chosen.count(Stage.RECOVERY) <= 1)
    return tuple(Step(draw(TEXTS), stage, draw(SETTINGS)) for stage in chosen)


PLANS = st.builds(Plan, st.lists(parts(ROUND_STAGES, 1), max_size=3).map(tuple), parts(FINISH_STAGES))


def as_data(**changes: Any) -> dict[str, Any]:
    return {**FULL.to_json(), **changes}


def test_the_steps_come_in_the_order_they_are_applied() -> None:
    assert list(FULL.steps) == [PRUNE, SPARSE, DISTILL, PRUNE, DISTILL, INT8, PACK]


def test_the_empty_plan_is_the_model_as_it_is() -> None:
    assert str(Plan()) == "the model as it is"
    assert list(Plan().steps) == []


def test_a_plan_reads_in_the_order_it_is_applied() -> None:
    assert str(Plan(((SPARSE,),), (INT8,))) == "sparse(share=0.8) | int8_static(activations=uint8, per_channel=True)"


@pytest.mark.parametrize("step", [INT8, PACK])
def test_a_round_takes_no_step_of_the_finish(step: Step) -> None:
    with pytest.raises(PlanError, match="does not belong there") as caught:
        Plan(((PRUNE,), (step,)))
    assert caught.value.where == "round 2"


@pytest.mark.parametrize("step", [PRUNE, SPARSE, DISTILL])
def test_the_finish_takes_no_step_of_a_round(step: Step) -> None:
    with pytest.raises(PlanError, match="does not belong there") as caught:
        Plan(finish=(step,))
    assert caught.value.where == "finish"


@pytest.mark.parametrize("steps", [(SPARSE, PRUNE), (DISTILL, PRUNE), (DISTILL, SPARSE), (PRUNE, DISTILL, SPARSE)])
def test_stages_of_a_round_keep_their_order(steps: tuple[Step, ...]) -> None:
    with pytest.raises(PlanError, match="out of order"):
        Plan((steps,))


def test_stages_of_the_finish_keep_their_order() -> None:
    with pytest.raises(PlanError, match="out of order"):
        Plan(finish=(PACK, INT8))


def test_a_round_trains_at_most_once() -> None:
    with pytest.raises(PlanError, match="one recovery step"):
        Plan(((DISTILL, DISTILL),))


def test_a_round_has_steps() -> None:
    with pytest.raises(PlanError, match="without steps"):
        Plan(((PRUNE,), ()))


def test_a_round_may_hold_several_steps_of_a_stage() -> None:
    assert Plan(((PRUNE, PRUNE, SPARSE),)).rounds == ((PRUNE, PRUNE, SPARSE),)


def test_the_settings_of_a_step_cannot_be_changed_afterwards() -> None:
    given_settings: dict[str, Setting] = {"share": 0.5}
    step = Step("prune", Stage.STRUCTURE, given_settings)
    given_settings["share"] = 0.9
    assert step.settings["share"] == 0.5
    with pytest.raises(TypeError, match="assignment"):
        step.settings["share"] = 0.9  # type: ignore[index]


def test_the_order_of_settings_makes_no_difference() -> None:
    one = Step("prune", Stage.STRUCTURE, {"a": 1, "b": 2})
    other = Step("prune", Stage.STRUCTURE, {"b": 2, "a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == str(other)
    assert Plan(((one,),)).hash == Plan(((other,),)).hash


@pytest.mark.parametrize(
    "other",
    [
        Plan(),
        Plan(FULL.rounds, (INT8,)),
        Plan(FULL.rounds[::-1], FULL.finish),
        Plan(FULL.rounds[:1], FULL.finish),
        Plan(((PRUNE,), (SPARSE, DISTILL), (PRUNE, DISTILL)), FULL.finish),
        Plan(
            FULL.rounds,
            (Step("int8_static", Stage.PRECISION, {"activations": "int8", "per_channel": True}), PACK),
        ),
        Plan(FULL.rounds, (Step("int8_dynamic", Stage.PRECISION, INT8.settings), PACK)),
        Plan(FULL.rounds, (INT8, Step("codebook", Stage.PACKING, {"bits": "4"}))),
    ],
    ids=range(8),
)
def test_plans_that_do_something_else_have_another_hash(other: Plan) -> None:
    assert other.hash != FULL.hash


def test_the_hash_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys\nfrom autocompress.core.plan import Plan\nprint(Plan.from_json(json.load(sys.stdin)).hash)\n"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(FULL.to_json()),
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4242")
    }
    assert hashes == {FULL.hash}


def test_the_hash_of_a_plan_stays_what_it_was_in_earlier_versions() -> None:
    # journals and checkpoints are filed under it: a change here is a change of the schema
    assert Plan().hash == "1f361d4fe9fb06fd"
    assert Plan(((PRUNE,),), (INT8,)).hash == "36c5bce7d83bad48"


def test_a_plan_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert pickle.loads(pickle.dumps(FULL)).hash == FULL.hash


@settings(deadline=None)
@given(PLANS)
def test_every_plan_survives_its_file_with_the_same_hash(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        path.write_text(plan.to_yaml(), encoding="utf-8")
        read = Plan.read(path)
    assert read == plan
    assert read.hash == plan.hash
    assert [[type(value) for value in step.settings.values()] for step in read.steps] == [
        [type(value) for value in step.settings.values()] for step in plan.steps
    ]


@settings(deadline=None)
@given(PLANS)
def test_every_plan_survives_json_with_the_same_hash(plan: Plan) -> None:
    read = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert read == plan
    assert read.hash == plan.hash


@settings(deadline=None)
@given(PLANS, PLANS)
def test_plans_that_read_the_same_in_json_are_those_with_the_same_hash(one: Plan, other: Plan) -> None:
    same = json.dumps(one.to_json(), sort_keys=True) == json.dumps(other.to_json(), sort_keys=True)
    assert (one.hash == other.hash) is same


STEP = INT8.to_json()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "plan",
        3,
        as_data(stages=[]),
        as_data(schema=2),
        as_data(schema="1"),
        {"rounds": [], "finish": []},
        as_data(rounds=5),
        as_data(rounds=[5]),
        as_data(rounds="abc"),
        as_data(rounds=[STEP]),
        as_data(finish=STEP),
        as_data(finish=["int8_static"]),
        as_data(finish=[{key: value for key, value in STEP.items() if key != "settings"}]),
        as_data(finish=[{key: value for key, value in STEP.items() if key != "stage"}]),
        as_data(finish=[{key: value for key, value in STEP.items() if key != "technique"}]),
        as_data(finish=[{**STEP, "stage": "quantize"}]),
        as_data(finish=[{**STEP, "stage": None}]),
        as_data(finish=[{**STEP, "settings": None}]),
        as_data(finish=[{**STEP, "settings": [1]}]),
        as_data(finish=[{**STEP, "settings": {"bits": None}}]),
        as_data(finish=[{**STEP, "settings": {"bits": [4, 8]}}]),
        as_data(finish=[{**STEP, "settings": {"bits": {"low": 4}}}]),
    ],
    ids=range(24),
)
def test_what_is_no_plan_is_refused_by_its_place(data: Any) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_json(data, where="runs/demo/plan.yaml")
    assert caught.value.where == "runs/demo/plan.yaml"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"rounds: [", "is not YAML"),
        (b"\x00", "is not YAML"),
        (b"!!python/object/apply:os.getcwd []", "is not YAML"),
        (b"\xff\xfe\xfa", "cannot be read"),
        (b"", "is not a plan"),
        (b"just words", "is not a plan"),
        (b"schema: 7", "has schema 7"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_by_its_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=said) as caught:
        Plan.read(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["gone.yaml", ""])
def test_a_missing_file_or_a_folder_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlanError, match="cannot be read") as caught:
        Plan.read(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_a_file_with_a_date_that_does_not_exist_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("schema: 2024-13-45", encoding="utf-8")
    with pytest.raises(PlanError):
        Plan.read(path)


def test_a_file_whose_stages_are_out_of_order_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(as_data(finish=[PACK.to_json(), INT8.to_json()])), encoding="utf-8")
    with pytest.raises(PlanError, match="out of order") as caught:
        Plan.read(path)
    assert str(path) in caught.value.where


def test_a_step_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(PlanError):
        Plan.from_json(as_data(finish=[{**STEP, "setings": {"activations": "int8"}}]))
