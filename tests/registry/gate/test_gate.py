"""The gate lets an honest retraining pass, and refuses with a reason what would not serve as the live version does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from app.errors import ArtifactError
from app.models.base import CtrModel
from app.registry.artifact.manifest import MANIFEST, PROGRAM
from app.registry.artifact.manifest_file import write_manifest
from app.registry.gate.gate import GateRefused, run_gate
from app.registry.gate.gate_report import REPORT, GateCheck, GateReport, read_report, write_report
from app.registry.gate.gate_task import FeatureSample, GateLimits, GateThresholds
from app.registry.store.model_store import ModelStore
from app.settings import Settings
from tests.factories import raw_item, raw_user, redis_text
from tests.registry.torchscript.variants import (
    Endless,
    Greedy,
    Slow,
    SlowScore,
    modified_model,
    publish_model,
    retrained_model,
)

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
THRESHOLDS = GateThresholds(*(DEFAULTS[f"gate_{name}"] for name in GateThresholds.__struct_fields__))
LIMITS = GateLimits(60.0, DEFAULTS["gate_memory_mb"])
STORED = FeatureSample(
    {str(n): redis_text(raw_user(n)) for n in range(20)}, {str(n): redis_text(raw_item(n)) for n in range(40)}
)

FAULT = pytest.mark.faults
"""Left to `make test-faults`: variants of the cases beside them, each a run of the gate that takes a second."""


def judged(store: ModelStore, version: int, **options: object) -> GateReport:
    """Run the gate with the default thresholds."""
    arguments = {"thresholds": THRESHOLDS, "limits": LIMITS} | options
    return run_gate(store, version, **arguments)  # type: ignore[arg-type]


def refused(store: ModelStore, version: int, **options: object) -> tuple[str, GateReport]:
    """Run the gate on a version that it refuses; return the reason and the report, which agree."""
    with pytest.raises(ArtifactError) as error:
        judged(store, version, **options)
    report = read_report(store.path(version))
    assert report is not None
    assert not report.passed
    assert report.refusal is not None
    assert report.refusal.reason == error.value.reason
    assert report.refusal.detail in str(error.value)
    with pytest.raises(ArtifactError, match="it was refused") as later:
        store.load(version)
    assert later.value.reason == "gate", "whatever points at it, no service loads it"
    return error.value.reason, report


def test_a_retraining_passes_and_its_report_says_what_was_found(store: ModelStore) -> None:
    publish_model(store, retrained_model(), live=True)
    version = publish_model(store, retrained_model(seed=1))
    report = judged(store, version, sample=STORED)
    assert report == read_report(store.path(version))
    assert (report.passed, report.against, report.forced, report.refusal) == (True, 1, False, None)
    checks = {check.name: check.figures for check in report.checks}
    assert list(checks) == ["integrity", "schema", "scores", "shift", "latency"]
    assert 0.8 < checks["shift"]["ctr_ratio"] < 1.25
    assert 0.9 < checks["shift"]["rank_correlation"] < 1
    assert checks["schema"]["known_user"] > 0.9
    assert checks["schema"]["known_item"] > 0.9
    assert checks["scores"]["scores"] == (2 * 4 + 20) * (2 * 4 * 20 + 40)
    assert checks["latency"]["request_ms"] > 0
    assert store.load(version).version == version


@pytest.mark.usefixtures("gate_in_process")
def test_the_first_version_is_compared_with_nothing(store: ModelStore) -> None:
    report = judged(store, publish_model(store, retrained_model()))
    assert (report.passed, report.against) == (True, None)
    assert [check.name for check in report.checks] == ["integrity", "live", "scores", "latency"]


@pytest.mark.usefixtures("gate_in_process")
def test_a_damaged_live_version_does_not_stop_the_one_that_mends_it(store: ModelStore) -> None:
    publish_model(store, retrained_model(), live=True)
    (store.path(1) / PROGRAM).write_bytes(b"x")
    report = judged(store, publish_model(store, retrained_model(seed=1)))
    assert report.passed
    assert "cannot be compared with" in report.checks[1].detail


@pytest.mark.parametrize(
    ("reason", "model"),
    [
        pytest.param("latency", lambda: retrained_model(Slow), marks=FAULT),
        ("shift", lambda: modified_model(lambda model: model.calibration_2[1].add_(1.0))),
        ("order", lambda: modified_model(lambda model: model.calibration_2[0].neg_())),
        pytest.param("shift", lambda: modified_model(lambda model: model.calibration_2[1].sub_(2.0)), marks=FAULT),
        pytest.param("order", lambda: modified_model(lambda model: model.calibration_2.zero_()), marks=FAULT),
    ],
)
@pytest.mark.usefixtures("gate_in_process")
def test_what_compares_badly_is_refused_unless_forced(
    store: ModelStore, reason: str, model: Callable[[], CtrModel]
) -> None:
    publish_model(store, retrained_model(), live=True)
    version = publish_model(store, model())
    # What turns the order round shifts the mean too.
    thresholds = msgspec.structs.replace(THRESHOLDS, ctr_ratio=9.0) if reason == "order" else THRESHOLDS
    assert refused(store, version, thresholds=thresholds)[0] == reason
    forced = judged(store, version, forced=True)
    assert (forced.passed, forced.forced) == (True, True)
    assert store.load(version).version == version
    store.promote(version, "canary")
    with pytest.raises(GateRefused) as more:
        judged(store, version, thresholds=thresholds)
    assert (more.value.reason, more.value.labels) == (reason, ["canary"])
    assert store.refusal(version) is None, "what answers requests is as it was judged"


@pytest.mark.usefixtures("gate_in_process")
def test_a_version_that_was_measured_to_be_better_stays_so_after_a_rollback(store: ModelStore) -> None:
    publish_model(store, retrained_model(), live=True)
    version = publish_model(store, modified_model(lambda model: model.calibration_2[1].add_(1.0)))
    assert judged(store, version, better=True).better_than == 1
    store.promote(version)
    assert judged(store, version).against is None, "it is the stable one"
    store.roll_back(1)
    again = judged(store, version)
    assert (again.passed, again.forced, again.better_than) == (True, False, 1)
    other = publish_model(store, retrained_model(seed=1), live=True)
    assert refused(store, version)[0] == "shift", f"it was measured against 1, and not against {other}"


@pytest.mark.usefixtures("gate_in_process")
def test_a_version_that_gets_a_label_while_it_is_judged_is_not_refused_beside_it(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its labels count at the moment at which the report is written, under the lock of both."""
    publish_model(store, retrained_model(), live=True)
    version = publish_model(store, modified_model(lambda model: model.calibration_2[1].add_(1.0)))
    own_lock = store.lock

    @contextlib.contextmanager
    def late_lock() -> Iterator[None]:
        """The lock, which another process had until it has made the version a canary."""
        monkeypatch.setattr(store, "lock", own_lock)
        store.promote(version, "canary")
        with own_lock():
            yield

    monkeypatch.setattr(store, "lock", late_lock)
    with pytest.raises(GateRefused) as late:
        judged(store, version)
    assert late.value.labels == ["canary"]
    assert store.refusal(version) is None


@pytest.mark.usefixtures("gate_in_process")
def test_what_no_request_runs_may_be_slow(store: ModelStore) -> None:
    publish_model(store, retrained_model(), live=True)
    report = judged(store, publish_model(store, retrained_model(SlowScore)))
    assert report.checks[-1].name == "latency"
    assert report.checks[-1].figures["request_ratio"] < 5


@pytest.mark.faults
def test_a_forward_that_never_ends_is_ended(store: ModelStore) -> None:
    publish_model(store, retrained_model(), live=True)
    began = time.monotonic()
    version = publish_model(store, retrained_model(Endless))
    reason, report = refused(store, version, limits=GateLimits(6.0, 4096))
    assert reason == "timeout"
    assert time.monotonic() - began < 20
    assert report.checks[-1].detail.startswith("the checks did not end within 6 s")
    assert refused(store, version, limits=GateLimits(6.0, 4096), forced=True)[0] == "timeout", "no force makes it serve"


def test_a_forward_that_takes_all_memory_is_ended(store: ModelStore) -> None:
    assert refused(store, publish_model(store, retrained_model(Greedy)), limits=GateLimits(60.0, 1024))[0] in {
        "memory",
        "golden",
    }


@pytest.mark.usefixtures("gate_in_process")
def test_a_damaged_version_is_refused_for_its_damage(store: ModelStore) -> None:
    version = publish_model(store, retrained_model())
    (store.path(version) / PROGRAM).write_bytes(b"x")
    assert refused(store, version)[0] == "hash"
    (store.path(version) / MANIFEST).unlink()
    with pytest.raises(ArtifactError) as gone:
        judged(store, version)
    assert gone.value.reason == "file"


def relabelled(sample: FeatureSample, user: str, item: str) -> FeatureSample:
    """The sample with its ids written otherwise."""
    return FeatureSample(
        {user.format(int(n)): raw for n, raw in sample.users.items()},
        {item.format(int(n)): raw for n, raw in sample.items.items()},
    )


@pytest.mark.parametrize(
    ("user", "item", "side"), [("u{}", "{}", "user"), ("{}", "sku-{}", "item"), ("{:05}", "sku-{}", "user")]
)
@pytest.mark.usefixtures("gate_in_process")
def test_ids_that_are_written_otherwise_are_noticed_though_all_features_are_known(
    user: str, item: str, side: str, store: ModelStore
) -> None:
    version = publish_model(store, retrained_model())
    reason, report = refused(store, version, sample=relabelled(STORED, user, item))
    assert reason == "schema"
    figures = report.checks[1].figures
    assert figures[f"known_{side}_ids"] == 0
    assert figures[f"known_{side}"] > 0.9, "the mean over the fields hides it"
    assert f"no {side} of the store is known" in report.checks[1].detail
    assert judged(store, version, sample=relabelled(STORED, user, item), forced=True).passed
    few = msgspec.structs.replace(THRESHOLDS, known_keys=0.0)
    assert judged(store, version, sample=relabelled(STORED, user, item), thresholds=few).passed


@pytest.mark.usefixtures("gate_in_process")
def test_a_catalogue_of_new_items_is_no_fault_as_long_as_it_has_one_that_was_trained_on(store: ModelStore) -> None:
    version = publish_model(store, retrained_model())
    new = {f"new{n}": redis_text(raw_item(n)) for n in range(200)}
    report = judged(store, version, sample=FeatureSample(items=new | {"3": redis_text(raw_item(3))}))
    assert report.passed
    assert 0 < report.checks[1].figures["known_item_ids"] < 0.01


@pytest.mark.usefixtures("gate_in_process")
def test_a_field_of_which_no_value_is_known_is_named(store: ModelStore) -> None:
    version = publish_model(store, retrained_model())
    items = {entity: raw | {"genres": '["zz"]'} for entity, raw in STORED.items.items()}
    reason, report = refused(store, version, sample=msgspec.structs.replace(STORED, items=items))
    assert reason == "schema"
    assert "values of genres in the store" in report.checks[1].detail


@pytest.mark.parametrize("side", ["users", "items"])
@pytest.mark.usefixtures("gate_in_process")
def test_a_store_with_other_features_is_noticed(store: ModelStore, side: str) -> None:
    version = publish_model(store, retrained_model())
    other = {str(10_000 + n): {"colour": "red", "size": str(n)} for n in range(30)}
    sample = msgspec.structs.replace(STORED, **{side: other})
    reason, report = refused(store, version, sample=sample)
    assert reason == "schema"
    figures = report.checks[1].figures
    low, high = ("known_user", "known_item") if side == "users" else ("known_item", "known_user")
    assert figures[low] < 0.1 < 0.9 < figures[high]
    assert judged(store, version, sample=FeatureSample(), forced=False).passed, "an empty store says nothing"


@pytest.mark.usefixtures("gate_in_process")
def test_a_report_is_of_one_manifest(store: ModelStore) -> None:
    version = publish_model(store, retrained_model())
    report = judged(store, version)
    bad = GateCheck("shift", False, "shift", "too far", comparison=True)
    write_report(store.path(version), msgspec.structs.replace(report, passed=False, checks=[*report.checks, bad]))
    with pytest.raises(ArtifactError, match=r"it was refused \(shift\): too far"):
        store.load(version)
    write_manifest(store.path(version), msgspec.structs.replace(store.manifest(version), data={"note": "mended"}))
    assert store.load(version).version == version


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 5000, b'{"passed": "no"}'])
def test_a_damaged_report_refuses_nothing(store: ModelStore, content: bytes) -> None:
    version = publish_model(store, retrained_model())
    (store.path(version) / REPORT).write_bytes(content)
    assert read_report(store.path(version)) is None
    assert store.load(version).version == version


def test_a_report_that_cannot_be_written_is_an_error_of_the_store(tmp_path: Path) -> None:
    report = GateReport(1, "", None, "", True, False, 0.0, [])
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_report(tmp_path / "absent", report)
