import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.artifact import DTYPES, TensorSpec
from autocompress.core.budget import METRICS, Budget
from autocompress.core.machine import Machine
from autocompress.core.objective import OBJECTIVES
from autocompress.core.profile import (
    Profile,
    load_profile,
    parse_profile,
    shipped_profiles,
)
from autocompress.errors import ProfileError

SHIPPED = {
    "android-midrange",
    "cloud-x86-4vcpu",
    "jetson-orin-nano",
    "local",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "x86-64-2core",
}
DESCRIBED = sorted(SHIPPED - {"local"})
ARM_FP16 = ("fp16", "int8_dot_product", "neon")
MACHINES = {
    "raspberry-pi-4": Machine("aarch64", "Cortex-A72", 4, 3_981, ("neon",), "Raspberry Pi 4 Model B Rev 1.4"),
    "raspberry-pi-5": Machine("aarch64", "Cortex-A76", 4, 8_454, ARM_FP16, "Raspberry Pi 5 Model B Rev 1.0"),
    "jetson-orin-nano": Machine(
        "aarch64",
        "Cortex-A78AE",
        6,
        7_990,
        ARM_FP16,
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    ),
    "android-midrange": Machine("aarch64", "Cortex-A55", 8, 7_600, ARM_FP16, "SM6450"),
    "x86-64-2core": Machine("x86_64", "AMD EPYC 7R13 Processor", 2, 4_100, ("avx2",)),
    "cloud-x86-4vcpu": Machine(
        "x86_64", "Intel(R) Xeon(R) Platinum 8375C CPU", 4, 8_200, ("avx2", "avx512f", "int8_dot_product")
    ),
}
OTHERS = {
    "Raspberry Pi 400": Machine("aarch64", "Cortex-A72", 4, 3_981, ("neon",), "Raspberry Pi 400 Rev 1.0"),
    "Raspberry Pi 500": Machine("aarch64", "Cortex-A76", 4, 8_454, ARM_FP16, "Raspberry Pi 500 Rev 1.0"),
    "32-bit Raspberry Pi 4": Machine("armv7l", "", 4, 3_981, ("neon",), "Raspberry Pi 4 Model B Rev 1.4"),
    "Jetson in a mode of four cores": Machine("aarch64", "", 4, 7_990, ARM_FP16, "NVIDIA Orin Nano Developer Kit"),
    "Jetson AGX Orin": Machine("aarch64", "", 12, 32_000, ARM_FP16, "NVIDIA Jetson AGX Orin Developer Kit"),
    "four vCPUs without VNNI": Machine("x86_64", "AMD EPYC 7R13 Processor", 4, 8_200, ("avx2",)),
    "a desktop": Machine("x86_64", "Intel(R) Core(TM) i9", 24, 64_000, ("avx2", "int8_dot_product")),
}


def profile_of(**keys: Any) -> Profile:
    return parse_profile({"name": "mine", **keys}, where="mine.yaml")


def file_of(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# the shipped ones


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_profile_that_was_noted_is_read_back_as_it_was(name: str) -> None:
    profile = load_profile(name).with_budgets([Budget("latency_ms", 1 / 3, relative=True), Budget("size_mb", 2.5)])
    noted = json.loads(json.dumps(profile.to_json()))
    assert parse_profile(noted, "journal") == profile
    several = profile.with_inputs([TensorSpec("ids", "", (1, 8)), TensorSpec("ids", "int64", (1, 16))])
    assert parse_profile(json.loads(json.dumps(several.to_json())), "journal") == several


def test_exactly_these_profiles_are_shipped() -> None:
    assert set(shipped_profiles()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_profile_loads_by_its_name_and_by_its_file(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile == load_profile(shipped_profiles()[name])
    assert profile.limits("size_mb")
    assert profile.limits("latency_ms")
    assert profile.limits("max_accuracy_drop_pp")
    assert profile.confidence == 0.95


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_profile_says_at_its_top_what_it_is_for(name: str) -> None:
    assert shipped_profiles()[name].read_text(encoding="utf-8").startswith("# ")
    assert load_profile(name).description.endswith(".")


def test_the_local_profile_describes_no_machine() -> None:
    device = load_profile("local").device
    assert device.fingerprint is None
    assert device.features == ()


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_shipped_device_is_described_with_its_sources(name: str) -> None:
    profile = load_profile(name)
    device = profile.device
    assert device.cpu
    assert device.memory_mb is not None
    assert device.cores is not None
    assert profile.runtime.threads <= device.cores
    assert len(profile.sources) >= 3
    assert all(source.startswith("https://") for source in profile.sources)


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_fingerprint_of_a_shipped_device_agrees_with_its_description(name: str) -> None:
    device = load_profile(name).device
    assert device.fingerprint is not None
    assert device.fingerprint.arch == device.arch
    assert device.fingerprint.cores == device.cores
    assert set(device.fingerprint.features) <= set(device.features)


@pytest.mark.parametrize("machine", [*MACHINES, *OTHERS])
def test_a_machine_fits_the_profile_of_its_device_and_no_other(machine: str) -> None:
    facts = {**MACHINES, **OTHERS}[machine]
    fitting = []
    for name in DESCRIBED:
        fingerprint = load_profile(name).device.fingerprint
        if fingerprint is not None and not fingerprint.mismatches(facts):
            fitting.append(name)
    assert fitting == ([machine] if machine in MACHINES else [])


def test_features_are_what_the_cores_have() -> None:
    assert load_profile("raspberry-pi-4").device.features == ("neon",)
    for name in ("raspberry-pi-5", "jetson-orin-nano", "android-midrange"):
        features = load_profile(name).device.features
        assert {"neon", "fp16", "int8_dot_product"} <= set(features)
        assert not {"i8mm", "bf16"} & set(features)


def test_serving_cost_is_the_objective_only_where_there_is_a_price() -> None:
    priced = {name for name in SHIPPED if load_profile(name).device.price_per_hour is not None}
    assert priced == {name for name in SHIPPED if load_profile(name).objective.name == "serving_cost"}
    assert priced == {"cloud-x86-4vcpu"}


# reading


def test_a_name_is_all_that_a_profile_needs() -> None:
    profile = profile_of()
    assert profile == Profile("mine")
    assert profile.budgets == ()
    assert profile.alpha == pytest.approx(0.05)


def test_a_profile_is_read_with_all_its_keys(tmp_path: Path) -> None:
    text = """
name: mine
device:
  class: edge
  arch: aarch64
  cores: 4
  features: [neon]
  fingerprint: {board: Raspberry Pi 4, min_memory_mb: 1000}
  price_per_hour: 0.2
runtime: {threads: 3, options: {session.intra_op.allow_spinning: 0, spin: true, mode: fast}}
protocol: {batch: 8, statistic: p95, precision: 0.05, max_seconds: 30}
budgets: {latency_ms: 12, size_mb: 0.35x, max_accuracy_drop_pp: 0}
objective: latency
confidence: 0.9
inputs: ["1x3x32x32", "ids=1x8:int64", "4:bool"]
"""
    profile = load_profile(file_of(tmp_path, text))
    assert profile.device.device_class == "edge"
    assert profile.device.fingerprint is not None
    assert profile.device.fingerprint.board == "Raspberry Pi 4"
    assert profile.device.fingerprint.min_memory_mb == 1000
    assert profile.device.price_per_hour == 0.2
    assert profile.runtime.options == {"session.intra_op.allow_spinning": "0", "spin": "1", "mode": "fast"}
    assert (profile.runtime.threads, profile.protocol.batch, profile.protocol.statistic) == (3, 8, "p95")
    assert profile.budgets == (
        Budget("size_mb", 0.35, relative=True),
        Budget("latency_ms", 12),
        Budget("max_accuracy_drop_pp", 0),
    )
    assert (profile.objective.name, profile.confidence) == ("latency", 0.9)
    assert profile.inputs == (
        TensorSpec("input", "float32", (1, 3, 32, 32)),
        TensorSpec("ids", "int64", (1, 8)),
        TensorSpec("input_2", "bool", (4,)),
    )


def test_a_profile_that_is_loaded_already_is_handed_back() -> None:
    profile = profile_of()
    assert load_profile(profile) is profile


def test_budgets_of_the_command_line_replace_those_of_the_same_metric() -> None:
    profile = profile_of(budgets={"size_mb": "0.5x", "latency_ms": 3})
    changed = profile.with_budgets([Budget("latency_ms", 9), Budget("min_accuracy", 80)])
    assert changed.budgets == (
        Budget("size_mb", 0.5, relative=True),
        Budget("latency_ms", 9),
        Budget("min_accuracy", 80),
    )
    assert profile.budgets[1] == Budget("latency_ms", 3)
    assert changed.limits("memory_mb", "min_accuracy")
    assert not profile.limits("memory_mb", "min_accuracy")


def test_a_limit_on_the_score_takes_the_place_of_one_in_points() -> None:
    local = load_profile("local")
    replaced = local.with_budgets([Budget("max_score_drop", 0.1)])
    assert {budget.metric for budget in replaced.budgets} == {"size_mb", "latency_ms", "max_score_drop"}
    both = local.with_budgets([Budget("max_score_drop", 0.1), Budget("max_accuracy_drop_pp", 3.0)])
    assert {b.metric: b.limit for b in both.budgets}["max_accuracy_drop_pp"] == 3.0


def test_layers_of_the_call_are_added_to_those_of_the_file() -> None:
    profile = profile_of(ignore=["stem"], keep_float=["head"])
    added = profile.with_layers(["stem", "block.*"], ["first"])
    assert (added.ignore, added.keep_float) == (("stem", "block.*"), ("head", "first"))
    # what is left alone is not quantized either
    assert added.in_float == ("head", "first", "stem", "block.*")
    assert parse_profile(added.to_json(), "noted").in_float == added.in_float


def test_one_text_is_no_list_of_layers() -> None:
    with pytest.raises(ProfileError, match=r"keep_float: is one text\. Give a list of names\."):
        Profile("local").with_layers([], "head")


def test_the_objective_may_be_replaced_by_a_known_one() -> None:
    assert profile_of().with_objective("size").objective.name == "size"
    assert profile_of(objective="latency").with_objective(None).objective.name == "latency"
    with pytest.raises(ProfileError, match="is not an objective") as caught:
        profile_of().with_objective("speed")
    assert caught.value.hint == f"Known: {', '.join(OBJECTIVES)}."


# refusing


@pytest.mark.parametrize(
    ("keys", "where", "nearest"),
    [
        ({"budget": {}}, "budget", "budgets"),
        ({"confidense": 0.9}, "confidense", "confidence"),
        ({"device": {"core": 4}}, "device.core", "cores"),
        ({"device": {"klass": "edge"}}, "device.klass", "class"),
        ({"device": {"device_class": "edge"}}, "device.device_class", "class"),
        ({"device": {"fingerprint": {"bord": "Pi"}}}, "device.fingerprint.bord", "board"),
        ({"runtime": {"thread": 2}}, "runtime.thread", "threads"),
        ({"protocol": {"max_second": 2}}, "protocol.max_second", "max_seconds"),
        ({"budgets": {"latency": 2}}, "budgets.latency", "latency_ms"),
        ({"budgets": {"sise_mb": 2}}, "budgets.sise_mb", "size_mb"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(keys: dict[str, Any], where: str, nearest: str) -> None:
    with pytest.raises(ProfileError, match="there is no") as caught:
        profile_of(**keys)
    assert caught.value.where == f"mine.yaml: {where}"
    assert caught.value.hint == f"Did you mean {nearest!r}?"


def test_a_profile_says_how_the_file_is_sent() -> None:
    assert parse_profile({"name": "mine"}, "mine.yaml").download == "zstd"
    mine = parse_profile({"name": "mine", "download": "acz"}, "mine.yaml")
    assert mine.download == "acz"
    assert mine.to_json()["download"] == "acz"
    with pytest.raises(ProfileError) as caught:
        parse_profile({"name": "mine", "download": "zip"}, "mine.yaml")
    assert caught.value.where.endswith("download")


@pytest.mark.parametrize(
    ("keys", "known"),
    [
        ({"zzz": 1}, "budgets"),
        ({"device": {"zzz": 1}}, "cores"),
        ({"device": {"fingerprint": {"zzz": 1}}}, "min_memory_mb"),
        ({"runtime": {"zzz": 1}}, "threads"),
        ({"protocol": {"zzz": 1}}, "statistic"),
        ({"budgets": {"zzz": 1}}, "throughput_per_s"),
    ],
)
def test_an_unknown_key_that_is_near_to_none_is_refused_with_all_known_ones(keys: dict[str, Any], known: str) -> None:
    with pytest.raises(ProfileError, match="there is no") as caught:
        profile_of(**keys)
    assert caught.value.hint.startswith("Known: ")
    assert known in caught.value.hint


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ({"latency_ms": -1}, "at least 0"),
        ({"latency_ms": "-0.5x"}, "at least 0"),
        ({"latency_ms": 0}, "never be met"),
        ({"latency_ms": "0x"}, "never be met"),
        ({"latency_ms": "fast"}, "is not a limit"),
        ({"latency_ms": "12 ms"}, "is not a limit"),
        ({"latency_ms": float("nan")}, "at least 0"),
        ({"latency_ms": float("inf")}, "at least 0"),
        ({"latency_ms": None}, "not a limit"),
        ({"latency_ms": [1]}, "not a limit"),
        ({"max_accuracy_drop_pp": "0.5x"}, "cannot be a share"),
        ({"max_accuracy_drop_pp": -1}, "at least 0"),
        ({"min_accuracy": "0.9x"}, "cannot be a share"),
        ({"min_accuracy": 101}, "at most 100"),
        ({"max_score_drop": "0.9x"}, "cannot be a share"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_file_and_key(budgets: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError, match=said) as caught:
        profile_of(budgets=budgets)
    assert caught.value.where.startswith(f"mine.yaml: budgets.{next(iter(budgets))}")


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"confidence": 1}, "confidence"),
        ({"confidence": 0.5}, "confidence"),
        ({"confidence": 95}, "confidence"),
        ({"confidence": -0.9}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"confidence": "high"}, "confidence"),
        ({"objective": "speed"}, "objective"),
        ({"objective": None}, "objective"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": 5}, "name"),
        ({"device": None}, "device"),
        ({"device": []}, "device"),
        ({"device": {"connection": ""}}, "device.connection"),
        ({"device": {"class": "toaster"}}, "device.class"),
        ({"device": {"cores": 0}}, "device.cores"),
        ({"device": {"cores": 2.5}}, "device.cores"),
        ({"device": {"memory_mb": -1}}, "device.memory_mb"),
        ({"device": {"features": "avx2"}}, "device.features"),
        ({"device": {"price_per_hour": 0}}, "device.price_per_hour"),
        ({"device": {"fingerprint": {"cores": 0}}}, "device.fingerprint.cores"),
        ({"runtime": {"name": ""}}, "runtime.name"),
        ({"runtime": {"threads": 0}}, "runtime.threads"),
        ({"runtime": {"threads": 1025}}, "runtime.threads"),
        ({"protocol": {"batch": 0}}, "protocol.batch"),
        ({"protocol": {"statistic": "p42"}}, "protocol.statistic"),
        ({"protocol": {"precision": 0}}, "protocol.precision"),
        ({"protocol": {"precision": 1}}, "protocol.precision"),
        ({"protocol": {"max_seconds": 0}}, "protocol.max_seconds"),
        ({"budgets": []}, "budgets"),
        ({"budgets": None}, "budgets"),
        ({"sources": "https://example.org"}, "sources"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_file_and_key(keys: dict[str, Any], where: str) -> None:
    with pytest.raises(ProfileError) as caught:
        profile_of(**keys)
    assert caught.value.where == f"mine.yaml: {where}"
    assert caught.value.exit_code == 2


def test_the_error_on_an_objective_says_what_is_allowed() -> None:
    with pytest.raises(ProfileError) as caught:
        profile_of(objective="speed")
    assert all(objective in caught.value.hint for objective in OBJECTIVES)


def test_a_profile_without_a_name_is_refused() -> None:
    with pytest.raises(ProfileError, match="is missing") as caught:
        parse_profile({"budgets": {}}, where="mine.yaml")
    assert caught.value.where == "mine.yaml: name"


@pytest.mark.parametrize("spec", ["", "3x", "1x3:float", "1x3x32x32 float32"])
def test_an_input_spec_that_cannot_be_read_is_refused_by_the_file(spec: str) -> None:
    with pytest.raises(ProfileError, match="is not an input spec") as caught:
        profile_of(inputs=["1x3", spec])
    assert caught.value.where.startswith("mine.yaml")


def test_shapes_by_name_leave_the_dtype_open() -> None:
    profile = profile_of(inputs={"ids": [1, 8], "mask": "1x8:bool", "image": "1x3"})
    ids, mask, image = profile.inputs
    assert ids == TensorSpec("ids", "", (1, 8))
    assert mask == TensorSpec("mask", "bool", (1, 8))
    assert image == TensorSpec("image", "", (1, 3))
    other, more = TensorSpec("ids", "", (1, 16)), TensorSpec("more", "", (1,))
    assert profile.with_inputs([other, more]).inputs == (other, mask, image, more)


def test_several_shapes_of_an_input_are_several_sets() -> None:
    profile = profile_of(inputs={"ids": [[1, 512], [1, 32]], "mask": ["1x512", "1x32"], "image": [1, 3]})
    assert list(profile.input_sets) == ["1x32", "1x512"]
    assert [str(spec) for spec in profile.inputs] == ["ids=1x512", "mask=1x512", "image=1x3"]
    assert [str(spec) for spec in profile.input_sets["1x32"]] == ["ids=1x32", "mask=1x32", "image=1x3"]
    by_set = profile_of(inputs=[{"ids": [1, 32], "mask": [1, 16]}, {"ids": [1, 64], "mask": [1, 16]}])
    assert list(by_set.input_sets) == ["1x32", "1x64"]
    mixed = profile_of(inputs=[{"ids": [1, 32], "mask": [1, 16]}, {"ids": [1, 64], "mask": [1, 8]}])
    assert list(mixed.input_sets) == ["ids=1x32, mask=1x16", "ids=1x64, mask=1x8"]
    assert list(profile_of(inputs={"ids": [[1, 32], [1, 32]]}).input_sets) == [""]


def test_the_command_line_gives_several_shapes_by_repeating_an_input() -> None:
    ids = [TensorSpec("ids", "", (1, size)) for size in (8, 16)]
    one = profile_of(inputs={"ids": [1, 4], "image": "1x3"})
    assert list(one.with_inputs(ids).input_sets) == ["1x8", "1x16"]
    assert [str(spec) for spec in one.with_inputs(ids).inputs] == ["ids=1x16", "image=1x3"]
    several = one.with_inputs(ids)
    assert list(several.with_inputs([TensorSpec("mask", "", (1, 2))]).input_sets) == ["1x8", "1x16"]
    assert list(several.with_inputs(ids[:1]).input_sets) == [""]
    with pytest.raises(ProfileError, match="different numbers"):
        several.with_inputs([TensorSpec("mask", "", (1, size)) for size in (2, 3, 4)])


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"ids": [[1, 8], [1, 0]]}, "is no shape"),
        ({"ids": [[1, 8], [1, 16]], "mask": [[1, 8], [1, 16], [1, 32]]}, "different numbers of shapes: ids 2, mask 3"),
        ({"ids": [1, 0]}, "is no shape"),
        ({"ids": [1, True]}, "is no shape"),
        ({"ids": []}, "is no shape"),
        ({"ids": "other=1x8"}, "is no shape"),
        ({"ids": "1xn"}, "is not an input spec"),
        ("1x8", "are no shapes by name"),
        ([[1, 8]], "are no shapes by name"),
    ],
)
def test_shapes_that_are_none_are_refused_by_the_file(inputs: Any, said: str) -> None:
    with pytest.raises(ProfileError, match=said) as caught:
        profile_of(inputs=inputs)
    assert caught.value.where.startswith("mine.yaml: inputs")
    assert caught.value.hint


@pytest.mark.parametrize("data", [None, [], "local", 3])
def test_what_has_no_keys_is_no_profile(data: Any) -> None:
    with pytest.raises(ProfileError, match="is not a profile") as caught:
        parse_profile(data, where="mine.yaml")
    assert caught.value.where == "mine.yaml"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("name: [", ", line 1"),
        ("name: mine\ndevice: {\n", ", line 3"),
        ("name: mine\n\tbudgets: 3", ", line 2"),
        ("name: mine\nbudgets: &a *b", ", line 2"),
        ("name: !!python/object/apply:os.getcwd []", ", line 1"),
        ("name: mine\n---\nname: yours", ", line 2"),
        ("name: \x07", ""),
    ],
)
def test_what_is_not_yaml_is_refused_by_file_and_line(tmp_path: Path, content: str, line: str) -> None:
    path = file_of(tmp_path, content)
    with pytest.raises(ProfileError, match="is not YAML") as caught:
        load_profile(path)
    assert caught.value.where == f"{path}{line}"


def test_a_file_that_is_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    path = file_of(tmp_path, b"\xff\xfe\xfa\x00")
    with pytest.raises(ProfileError, match="cannot be read") as caught:
        load_profile(path)
    assert caught.value.where == str(path)


def test_an_empty_file_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="is not a profile"):
        load_profile(file_of(tmp_path, ""))


def test_a_missing_file_is_refused_with_the_shipped_names(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such profile") as caught:
        load_profile(tmp_path / "gone.yaml")
    assert caught.value.where == str(tmp_path / "gone.yaml")
    assert all(name in caught.value.hint for name in SHIPPED)


def test_a_folder_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="is not a file") as caught:
        load_profile(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_yes_or_no_is_no_limit() -> None:
    with pytest.raises(ProfileError):
        profile_of(budgets={"latency_ms": True})


@pytest.mark.parametrize("keys", [{"runtime": {"threads": True}}, {"protocol": {"batch": True}}])
def test_a_yes_or_no_is_no_number(keys: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        profile_of(**keys)


@pytest.mark.parametrize(
    "keys", [{"protocol": {"max_seconds": float("inf")}}, {"device": {"price_per_hour": float("inf")}}]
)
def test_times_and_prices_are_finite(keys: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        profile_of(**keys)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError):
        load_profile(file_of(tmp_path, "name: mine\nbudgets:\n  latency_ms: 1\n  latency_ms: 100\n"))


def test_a_date_that_does_not_exist_is_refused_by_the_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError):
        load_profile(file_of(tmp_path, "name: 2024-13-45"))


def test_a_name_that_is_too_long_for_a_file_is_no_profile() -> None:
    with pytest.raises(ProfileError):
        load_profile("a" * 5_000)


# any profile

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=10)
COUNTS = st.integers(1, 1_000)
SPECS = st.builds(
    TensorSpec,
    st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 512), min_size=1, max_size=4).map(tuple),
)
POSITIVE = st.floats(1e-3, 1e6)
FINGERPRINTS = st.fixed_dictionaries(
    {},
    optional={
        "arch": WORDS,
        "cpu_model": WORDS,
        "board": WORDS,
        "cores": COUNTS,
        "min_memory_mb": COUNTS,
        "features": st.lists(WORDS, max_size=3),
    },
).filter(lambda facts: any(facts.values()))
DEVICES = st.fixed_dictionaries(
    {},
    optional={
        "connection": st.just("local"),
        "class": st.sampled_from(["server", "desktop", "edge", "mobile"]),
        "arch": WORDS,
        "cpu": WORDS,
        "cores": COUNTS,
        "memory_mb": COUNTS,
        "features": st.lists(WORDS, max_size=3),
        "fingerprint": st.none() | FINGERPRINTS,
        "price_per_hour": POSITIVE,
    },
)
OPTIONS = st.dictionaries(WORDS, WORDS | st.integers() | st.booleans(), max_size=3)
RUNTIMES = st.fixed_dictionaries({}, optional={"threads": st.integers(1, 1024), "options": OPTIONS})
PROTOCOLS = st.fixed_dictionaries(
    {},
    optional={
        "batch": COUNTS,
        "streams": st.integers(1, 1024),
        "statistic": st.sampled_from(["p50", "mean", "p90", "p95", "p99"]),
        "precision": st.floats(0.001, 0.999),
        "max_seconds": POSITIVE,
    },
)
SHARES = POSITIVE.map(lambda value: f"{value!r}x")
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        name: POSITIVE | SHARES if metric.may_be_relative else st.floats(1, 100) for name, metric in METRICS.items()
    },
)
PROFILES = st.fixed_dictionaries(
    {"name": WORDS.filter(bool)},
    optional={
        "description": WORDS,
        "device": DEVICES,
        "runtime": RUNTIMES,
        "protocol": PROTOCOLS,
        "budgets": LIMITS,
        "objective": st.sampled_from(sorted(OBJECTIVES)),
        "confidence": st.floats(0.501, 0.999),
        "inputs": st.lists(SPECS.map(str), max_size=3, unique_by=lambda spec: spec.partition("=")[0]),
        "sources": st.lists(WORDS, max_size=2),
    },
)


def kept(section: dict[str, Any], facts: object, **renamed: str) -> bool:
    """True when each key of a section is in the facts, lists as tuples."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
    return all(getattr(facts, renamed.get(key, key)) == value for key, value in values.items())


@settings(deadline=None)
@given(PROFILES)
def test_every_valid_profile_is_read_with_what_it_says(data: dict[str, Any]) -> None:
    profile = parse_profile(data, where="any")
    assert profile.objective.name == data.get("objective", "effort")
    plain_keys = {"name", "description", "confidence", "sources"}
    plain = {key: value for key, value in data.items() if key in plain_keys}
    assert kept(plain, profile)
    device = dict(data.get("device", {}))
    fingerprint = device.pop("fingerprint", None)
    assert kept(device, profile.device, **{"class": "device_class"})
    assert (profile.device.fingerprint is None) is (fingerprint is None)
    assert kept(fingerprint or {}, profile.device.fingerprint)
    assert kept(data.get("protocol", {}), profile.protocol)
    assert {b.metric: b.text if b.relative else b.limit for b in profile.budgets} == {
        name: f"{float(limit[:-1]):g}x" if isinstance(limit, str) else limit
        for name, limit in data.get("budgets", {}).items()
    }
    assert [str(spec) for spec in profile.inputs] == data.get("inputs", [])
    assert set(profile.runtime.options) == set(data.get("runtime", {}).get("options", {}))


@settings(deadline=None)
@given(PROFILES)
def test_every_valid_profile_survives_its_file(data: dict[str, Any]) -> None:
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    assert parse_profile(yaml.safe_load(text), where="any") == parse_profile(data, where="any")


PLACES = ((), ("device",), ("device", "fingerprint"), ("runtime",), ("protocol",), ("budgets",))


@settings(deadline=None)
@given(PROFILES, st.sampled_from(PLACES), WORDS.map("?{}".format), st.integers() | WORDS)
def test_an_unknown_key_is_refused_wherever_it_stands(
    data: dict[str, Any], place: tuple[str, ...], key: str, value: Any
) -> None:
    section = data
    for name in place:
        section[name] = dict(section.get(name) or ({"cores": 1} if name == "fingerprint" else {}))
        section = section[name]
    parse_profile(data, where="any")
    section[key] = value
    with pytest.raises(ProfileError, match="there is no") as caught:
        parse_profile(data, where="any")
    assert caught.value.where == "any: " + ".".join((*place, key))
    assert caught.value.hint
