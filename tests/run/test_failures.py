"""One bad trial ends itself and not the run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx.shape_inference import InferenceError
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, RuntimeException

from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.trial import Outcome
from autocompress.core.verdict import Status
from autocompress.errors import DeviceError, MissingExtraError, ModelError, PlanError, RecordError, RuntimeFailureError
from autocompress.report.frame import trials_frame
from autocompress.testing.fakes import FakeDevice, Scripted, Stand, Variant, ramp, task_of, variants

BUDGETS = {"size_mb": "0.7x", "latency_ms": "0.6x", "max_accuracy_drop_pp": 10.0}
GOOD = Variant(kilobytes=20, latency_ms=5.0, wrong_below=0.02)
TASK = task_of(ramp(400), ramp(1000))
FOREIGN = {
    "Fail": Fail("the runtime's own"),
    "InvalidGraph": InvalidGraph("no graph"),
    "RuntimeException": RuntimeException("while running"),
    "InferenceError": InferenceError("shapes"),
    "ValidationError": onnx.checker.ValidationError("checked"),
    "MemoryError": MemoryError(),
    "OutOfMemoryError": torch.OutOfMemoryError("tried to allocate 9 GiB"),
    "RuntimeError": RuntimeError("first line\nsecond line"),
    "AttributeError": AttributeError("a defect of the technique"),
}
OWN = {
    "model": ModelError("differs after export.", where="model"),
    "extra": MissingExtraError("is not installed.", where="toy"),
    "plan": PlanError("cannot be made.", where="toy"),
}


def stand(folder: Path, named: Mapping[str, Variant], **more: Any) -> Stand:
    return Stand(folder, [Scripted("scripted", named)], **{"budgets": BUDGETS, "task": TASK, **more})


def log_of(folder: Path) -> str:
    return (folder / "failures.log").read_text(encoding="utf-8")


def test_whatever_a_technique_raises_ends_its_trial_and_another_plan_is_the_answer(tmp_path: Path) -> None:
    raising = {name: Variant(raises=error) for name, error in {**FOREIGN, **OWN}.items()}
    result = stand(tmp_path, {**raising, "good": GOOD}).result()
    assert result.met, str(result)
    assert variants([result.plan]) == ["good"]
    by_name = {variants([trial.plan])[0]: trial for trial in result.history}
    assert all(by_name[name].outcome is Outcome.FAILED for name in raising)
    assert list(by_name) == [*raising, "good"]
    for name in FOREIGN:
        assert name in by_name[name].reason
        assert by_name[name].reason.startswith("scripted: ")
        assert by_name[name].reason.endswith("(traceback in failures.log)")
    assert "second line" not in by_name["RuntimeError"].reason
    assert by_name["model"].reason == "model: differs after export."
    # the table of trials names each failure, the log has where it came from
    assert set(trials_frame(result.history)["reason"]) >= {trial.reason for trial in by_name.values()}
    assert "AttributeError: a defect of the technique" in log_of(tmp_path)
    assert "fakes.py" in log_of(tmp_path)


@pytest.mark.parametrize("error", [DeviceError("gone."), RecordError("locked."), KeyboardInterrupt(), SystemExit()])
def test_the_device_the_record_and_the_user_end_the_run(tmp_path: Path, error: BaseException) -> None:
    made = stand(tmp_path, {"ends": Variant(raises=error), "good": GOOD})
    with pytest.raises(type(error)):
        list(made.search().contenders())
    assert made.record.trials() == []


class Moody(FakeDevice):
    """A device that fails on some calls, counted from 0, in the way that is given."""

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        super().__init__()
        self.failures = failures

    def measure(
        self,
        artifacts: Sequence[Artifact],
        profile: Profile,
        example: Example | None = None,
        max_seconds: float | None = None,
        also: Collection[str] = (),
    ) -> list[Measurement]:
        found = super().measure(artifacts, profile, example, max_seconds, also)
        failure = self.failures.get(len(self.measured) - 1)
        if failure is not None:
            raise failure
        return found


def test_what_a_device_raises_for_one_file_ends_its_trial(tmp_path: Path) -> None:
    made = stand(tmp_path, {"one": GOOD, "good": replace(GOOD, kilobytes=21)}, device=Moody({0: KeyError("ms")}))
    found = list(made.search().contenders())
    assert variants(trial.plan for trial in found) == ["good"]
    first = made.record.trials()[0]
    assert first.outcome is Outcome.FAILED
    assert "KeyError: 'ms'" in first.reason
    assert set(first.measurement.readings) == {"size_mb"}


def test_a_failed_plan_is_never_proposed_again(tmp_path: Path) -> None:
    named = {"fails": Variant(raises=MemoryError()), "good": GOOD}
    made = stand(tmp_path, named, objective="latency")
    list(made.search().contenders())
    made.record.close()
    again = stand(tmp_path, named, objective="latency")
    list(again.search().contenders())
    assert again.tried() == ["fails", "good"]


def test_a_confirmation_that_fails_is_followed_by_the_next_contender(tmp_path: Path) -> None:
    # calls: the model, both trials, then the confirmation of the better one
    device = Moody({3: RuntimeFailureError("the measuring process died (signal 9).", where="model.onnx")})
    named = {"best": replace(GOOD, latency_ms=4.0), "good": GOOD}
    result = stand(tmp_path, named, device=device, objective="latency").result()
    assert result.met, str(result)
    assert variants([result.plan]) == ["good"]
    failed = next(trial for trial in result.history if variants([trial.plan]) == ["best"])
    assert failed.outcome is Outcome.FAILED
    assert "could not be confirmed: model.onnx: the measuring process died (signal 9)." in failed.reason
    frame = trials_frame(result.history)
    assert list(frame[frame["outcome"] == "failed"]["pareto"]) == [False]


def test_a_confirmation_that_failed_is_not_tried_again(tmp_path: Path) -> None:
    # calls: the model, the trial, the confirmation
    device = Moody({2: RuntimeError("once")})
    made = stand(tmp_path, {"good": GOOD}, device=device)
    assert made.confirmations() == []
    assert made.record.trials()[0].outcome is Outcome.FAILED
    assert list(made.search().contenders()) == []
    assert made.confirmations() == []
    assert len(device.measured) == 3


def test_the_unchanged_model_failing_ends_the_run(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD}, budgets={"size_mb": "2x"}, device=Moody({1: RuntimeFailureError("died.")}))
    with pytest.raises(RuntimeFailureError, match="died"):
        made.confirmations()


def test_the_nearest_miss_is_none_that_failed(tmp_path: Path) -> None:
    near, far = Variant(kilobytes=29, latency_ms=5.0), Variant(kilobytes=36, latency_ms=5.0)
    named = {"fails": Variant(raises=MemoryError()), "near": near, "far": far}
    # trials are stopped by their size, and the first measurement of time is that of the nearest miss
    device = Moody({1: RuntimeError("it dies when it is measured to the end")})
    result = stand(tmp_path, named, device=device).result()
    assert result.status is Status.NOT_MET
    assert variants([result.plan]) == ["far"]
    failed = {variants([trial.plan])[0] for trial in result.history if trial.outcome is Outcome.FAILED}
    assert failed == {"fails", "near"}


def test_a_quantized_file_that_failed_does_not_say_that_structure_cannot_help(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD})
    made.run.record.fail_later(made.techniques[0].plan("good"), "it died.")  # type: ignore[attr-defined]
    search = made.search()
    list(search.contenders())
    assert not search.structure_suffices


def test_the_record_keeps_the_failure_for_others(tmp_path: Path) -> None:
    made = stand(tmp_path, {"good": GOOD})
    (trial,) = made.search().contenders()
    made.record.fail_later(trial.plan, "it died.")
    made.record.close()
    (kept,) = stand(tmp_path, {"good": GOOD}).record.trials()
    assert (kept.outcome, kept.reason) == (Outcome.FAILED, "it died.")
