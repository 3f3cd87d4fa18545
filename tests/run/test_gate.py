import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.device import Device
from autocompress.core.machine import Fingerprint
from autocompress.core.profile import DeviceProfile, Profile
from autocompress.core.source import Array
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.core.verdict import Finding, Standing, Status
from autocompress.errors import DataError, DeviceError
from autocompress.run import gate
from autocompress.run.gate import Certified, Check, Gauge, check, tools_without_techniques
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.fakes import MACHINE, FakeDevice
from autocompress.testing.networks import CLASSES, Exported, Exports, labelled

GENEROUS = {"size_mb": 1.0, "memory_mb": 4000.0, "latency_ms": 1000.0, "throughput_per_s": 0.1, "min_accuracy": 50.0}


@pytest.fixture
def cnn(exports: Exports) -> Exported:
    return exports(OnnxRuntime(), "cnn")


@pytest.fixture
def task(cnn: Exported) -> Task:
    """Random inputs with the model's own answers as labels: it is always right."""
    inputs, _ = labelled("cnn", 300)
    return Task(test=(inputs, answers_of(cnn.artifact, inputs)))


def answers_of(artifact: Artifact, inputs: Any) -> Array:
    session = OnnxRuntime().load(artifact, 1, {})
    (logits,) = session.run({"input": inputs[0]})
    return np.asarray(logits.argmax(1))


def profile_of(brief: Profile, budgets: dict[str, float | str], **more: Any) -> Profile:
    limits = tuple(Budget.parse(metric, limit) for metric, limit in budgets.items())
    return replace(brief, budgets=limits, **more)


def checked(
    profile: Profile, artifact: Artifact, baseline: Artifact | None = None, task: Task | None = None, **more: Any
) -> Check:
    return check(artifact, baseline, profile, more.get("tools") or scripted(FakeDevice()), task)


def scripted(device: Device) -> Tools:
    return Tools(OnnxRuntime(), device, ())


def finding_of(found: Check, metric: str) -> Finding:
    finding = found.verdict.of(metric)
    assert finding is not None
    return finding


# on the real device


def test_budgets_that_are_all_met_pass(brief_profile: Profile, cnn: Exported, task: Task) -> None:
    profile = profile_of(brief_profile, GENEROUS)
    tools = tools_without_techniques(profile)
    found = checked(profile, cnn.artifact, task=task, tools=tools)
    assert {f.budget.metric: f.standing for f in found.verdict.findings} == dict.fromkeys(GENEROUS, Standing.MET)
    assert found.verdict.status is Status.MET
    assert found.verdict.status.exit_code == 0
    assert found.machine == str(tools.device.machine())
    assert found.measurement.readings["latency_ms"].samples.ndim == 2
    assert finding_of(found, "size_mb").value == cnn.artifact.size_bytes / 1e6
    assert finding_of(found, "min_accuracy").value == 100.0


def test_a_share_of_a_baseline_that_is_not_given_is_unmeasured_and_does_not_pass(
    brief_profile: Profile, cnn: Exported
) -> None:
    budgets: dict[str, float | str] = {"size_mb": "2x", "latency_ms": "100x", "memory_mb": 4000.0}
    profile = profile_of(brief_profile, budgets)
    found = checked(profile, cnn.artifact, tools=tools_without_techniques(profile))
    standings = {f.budget.metric: f.standing for f in found.verdict.findings}
    assert standings == {
        "size_mb": Standing.UNMEASURED,
        "latency_ms": Standing.UNMEASURED,
        "memory_mb": Standing.MET,
    }
    assert found.verdict.status.exit_code == 3


def test_beside_a_baseline_shares_are_measured_in_blocks_that_alternate(
    brief_profile: Profile, cnn: Exported, exports: Exports
) -> None:
    mlp = exports(OnnxRuntime(), "mlp").artifact
    budgets: dict[str, float | str] = {"size_mb": "2x", "latency_ms": "1000x", "throughput_per_s": "0.001x"}
    profile = profile_of(brief_profile, budgets)
    found = checked(profile, cnn.artifact, mlp, tools=tools_without_techniques(profile))
    assert found.verdict.status is Status.MET
    assert finding_of(found, "size_mb").value == pytest.approx(cnn.artifact.size_bytes / mlp.size_bytes)
    after, before = (side["latency_ms"].samples for side in (found.measurement.readings, found.measurement.baseline))
    assert len(after) == len(before)


# with a scripted clock


@pytest.mark.parametrize(
    ("metric", "limit"),
    [("size_mb", 0.001), ("memory_mb", 0.001), ("latency_ms", 9.99), ("throughput_per_s", 100.1), ("size_mb", "0.5x")],
)
def test_a_budget_that_is_exceeded_does_not_pass(
    brief_profile: Profile, cnn: Exported, task: Task, metric: str, limit: float | str
) -> None:
    found = checked(profile_of(brief_profile, {**GENEROUS, metric: limit}), cnn.artifact, cnn.artifact, task)
    assert finding_of(found, metric).standing is Standing.EXCEEDED
    assert [f.budget.metric for f in found.verdict.findings if f.standing is not Standing.MET] == [metric]
    assert found.verdict.status.exit_code == 1


def test_the_scripted_latency_is_met_exactly_at_its_limit(brief_profile: Profile, cnn: Exported) -> None:
    found = checked(profile_of(brief_profile, {"latency_ms": 10.0, "throughput_per_s": 100.0}), cnn.artifact)
    assert found.verdict.status is Status.MET


def test_without_budgets_nothing_passes(brief_profile: Profile, cnn: Exported) -> None:
    found = checked(profile_of(brief_profile, {}), cnn.artifact)
    assert found.verdict.findings == ()
    assert found.verdict.status.exit_code == 3


@pytest.mark.parametrize("budgets", [{"min_accuracy": 1.0}, {"max_accuracy_drop_pp": 99.0}])
def test_accuracy_without_data_is_unmeasured_and_does_not_pass(
    brief_profile: Profile, cnn: Exported, budgets: dict[str, float | str]
) -> None:
    validation_only = Task(val=labelled("cnn", 20))
    for given in (None, validation_only):
        found = checked(profile_of(brief_profile, budgets), cnn.artifact, cnn.artifact, given)
        assert [f.standing for f in found.verdict.findings] == [Standing.UNMEASURED]
        assert found.verdict.status.exit_code == 3


def test_an_accuracy_drop_without_a_baseline_is_unmeasured(brief_profile: Profile, cnn: Exported, task: Task) -> None:
    found = checked(
        profile_of(brief_profile, {"max_accuracy_drop_pp": 99.0, "min_accuracy": 50.0}), cnn.artifact, None, task
    )
    assert finding_of(found, "max_accuracy_drop_pp").standing is Standing.UNMEASURED
    assert finding_of(found, "min_accuracy").standing is Standing.MET
    assert found.verdict.status.exit_code == 3


def test_an_accuracy_drop_is_taken_over_all_test_items(brief_profile: Profile, cnn: Exported, task: Task) -> None:
    found = checked(profile_of(brief_profile, {"max_accuracy_drop_pp": 5.0}), cnn.artifact, cnn.artifact, task)
    finding = finding_of(found, "max_accuracy_drop_pp")
    assert (finding.standing, finding.value, finding.samples) == (Standing.MET, 0.0, 300)


def test_a_worse_artifact_than_the_baseline_exceeds_the_drop(brief_profile: Profile, cnn: Exported) -> None:
    # by labels that the model never gives
    inputs, _ = labelled("cnn", 300)
    wrong = (answers_of(cnn.artifact, inputs) + 1) % CLASSES
    found = checked(profile_of(brief_profile, {"min_accuracy": 50.0}), cnn.artifact, None, Task(test=(inputs, wrong)))
    assert finding_of(found, "min_accuracy").value == 0.0
    assert found.verdict.status.exit_code == 1


def test_a_budget_on_the_download_size_is_measured(brief_profile: Profile, cnn: Exported) -> None:
    found = checked(profile_of(brief_profile, {"download_mb": 1.0}), cnn.artifact)
    assert finding_of(found, "download_mb").standing is Standing.MET


def test_an_energy_budget_does_not_pass_as_long_as_no_energy_is_read(brief_profile: Profile, cnn: Exported) -> None:
    found = checked(profile_of(brief_profile, {"energy_mj": 1e9}), cnn.artifact)
    assert found.verdict.status.exit_code == 3


def test_data_of_another_model_are_an_error(brief_profile: Profile, cnn: Exported) -> None:
    with pytest.raises(DataError) as caught:
        checked(profile_of(brief_profile, {"min_accuracy": 1.0}), cnn.artifact, None, Task(test=labelled("mlp", 20)))
    assert caught.value.exit_code == 2


def test_another_machine_than_the_profiles_is_refused_before_anything_is_measured(
    brief_profile: Profile, cnn: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice()
    monkeypatch.setattr(gate, "device_of", lambda profile, runtime: device)
    elsewhere = replace(brief_profile, device=DeviceProfile(fingerprint=Fingerprint(arch="riscv64")))
    with pytest.raises(DeviceError, match="riscv64") as caught:
        checked(elsewhere, cnn.artifact, tools=tools_without_techniques(elsewhere))
    assert caught.value.exit_code == 4
    assert device.measured == []


def test_artifact_and_baseline_are_measured_together(brief_profile: Profile, cnn: Exported, exports: Exports) -> None:
    device, mlp = FakeDevice(), exports(OnnxRuntime(), "mlp").artifact
    tools = scripted(device)
    measurement = Gauge.of(brief_profile, tools, None, cnn.artifact, mlp).measure(cnn.artifact)
    assert device.measured == [(mlp.hash, cnn.artifact.hash)]
    assert measurement.readings["size_mb"].value == cnn.artifact.size_bytes / 1e6
    assert measurement.baseline["size_mb"].value == mlp.size_bytes / 1e6
    assert measurement.conditions is not None
    assert measurement.conditions.artifact_hash == cnn.artifact.hash
    assert checked(brief_profile, cnn.artifact, mlp, tools=tools).machine == str(MACHINE)


def test_a_check_is_json_with_artifact_status_and_findings(brief_profile: Profile, cnn: Exported) -> None:
    few = scripted(FakeDevice(blocks=2))
    found = checked(profile_of(brief_profile, {"latency_ms": 20.0, "size_mb": 1.0}), cnn.artifact, tools=few)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["artifact_sha256"] == cnn.artifact.hash
    assert data["status"] == "undecided"
    assert [finding["standing"] for finding in data["findings"]] == ["undecided", "met"]
    assert data["findings"][0]["low"] is None


@pytest.mark.parametrize(
    ("made_at", "asked", "serves"), [(0.6, 0.99, False), (0.95, 0.99, False), (0.95, 0.95, True), (0.99, 0.95, True)]
)
def test_a_certificate_serves_profiles_of_its_confidence_and_below(
    cnn: Exported, brief_profile: Profile, made_at: float, asked: float, serves: bool
) -> None:
    runtime = OnnxRuntime()
    drop = Finding(Budget("max_accuracy_drop_pp", 1.0), Standing.MET, 0.1, 0.0, 0.2, samples=300)
    content = {
        "artifact_sha256": cnn.artifact.hash,
        "baseline_sha256": "",
        "status": "met",
        "confidence": made_at,
        "issued": "2026-01-01",
        "findings": [drop.to_json()],
        "versions": dict(runtime.versions),
        "machine_fingerprint": MACHINE.fingerprint,
    }
    certified = Certified.verify(content, "certificate.json", cnn.artifact, None)
    profile = profile_of(brief_profile, {"max_accuracy_drop_pp": 1.0}, confidence=asked)
    found = check(cnn.artifact, None, profile, scripted(FakeDevice()), None, certified)
    assert finding_of(found, "max_accuracy_drop_pp").standing is (Standing.MET if serves else Standing.UNMEASURED)
    told = f"certificate.json was certified at {made_at:g}, the profile asks {asked:g}: measure accuracy again"
    assert [told in note for note in found.notes] == ([] if serves else [True])
