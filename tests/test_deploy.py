"""The deployment files fit the published schemas, name what the code has, and agree with each other. What the alerts
mean is in docs/runbook.md: tests/test_runbook.py."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import promql_parser
import pytest
import yaml
from typer.testing import CliRunner

from app.cli import cli
from app.commands.retrain import NOTHING_PUBLISHED
from app.observability.metrics import Metrics
from app.settings import Settings

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.31", "1.37"
"""podFailurePolicy is stable since 1.31."""
MANIFESTS = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in RULES for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for group in RULES for rule in group["rules"] if "record" in rule}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


OBJECTS = {(one["kind"], one["metadata"]["name"]): one for path in MANIFESTS for one in documents(path)}
DEPLOYMENT = OBJECTS["Deployment", "ctr-serving"]["spec"]
CRON = OBJECTS["CronJob", "ctr-retrain"]["spec"]
PODS = {
    "service": DEPLOYMENT["template"]["spec"],
    "retrain": CRON["jobTemplate"]["spec"]["template"]["spec"],
    "train": OBJECTS["Job", "ctr-first-version"]["spec"]["template"]["spec"],
}
SETTINGS = OBJECTS["ConfigMap", "ctr-settings"]["data"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schema_of_kubernetes(path: Path, version: str) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_manifest_that_does_not_fit_is_found() -> None:
    wrong = msgspec.json.decode(msgspec.json.encode(OBJECTS["Deployment", "ctr-serving"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["httpGett"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_one_kustomization_has_every_manifest_and_every_image() -> None:
    found = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert set(found["resources"]) == {path.name for path in MANIFESTS}
    images = {container["image"] for pod in PODS.values() for container in pod["containers"]}
    assert {image["name"] for image in found["images"]} == images
    assert ("Namespace", found["namespace"]) in OBJECTS


@pytest.mark.parametrize("name", PODS)
def test_pods_run_with_as_little_as_they_need(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} == set(container["resources"]["limits"]) == set(container["resources"]["requests"])
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["model-store"]["mountPath"] == SETTINGS["CTR_MODEL_STORE"]
    assert mounts["model-store"].get("readOnly", False) is (name == "service"), "only publishers write"
    assert SETTINGS["CTR_DATA_DIR"].startswith(mounts["tmp"]["mountPath"])
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim")
        assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in OBJECTS


def test_users_and_files_of_images_and_pods_agree() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for pod in PODS.values():
        context = pod["securityContext"]
        assert f"--uid {context['runAsUser']} " in dockerfile
        assert f"--gid {context['runAsGroup']} " in dockerfile
        assert context["fsGroup"] == context["runAsGroup"]


def test_settings_exist_and_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    compose = {name for service in COMPOSE["services"].values() for name in service.get("environment", ())}
    for name in {*SETTINGS, *compose}:
        assert name.removeprefix("CTR_").lower() in Settings.model_fields, name
    (container,) = PODS["service"]["containers"]
    assert container["ports"][0]["containerPort"] == settings.port
    assert settings.workers <= int(container["resources"]["limits"]["cpu"])


def test_a_replica_has_time_to_drain() -> None:
    (container,) = PODS["service"]["containers"]
    probe = container["readinessProbe"]
    drain, grace = float(SETTINGS["CTR_DRAIN_S"]), float(SETTINGS["CTR_SHUTDOWN_GRACE_S"])
    assert probe["periodSeconds"] * probe["failureThreshold"] <= drain, (
        "no more traffic is sent when it stops accepting"
    )
    stop = drain + grace + 1  # what is left is cut off within a second
    assert stop < PODS["service"]["terminationGracePeriodSeconds"] <= stop + 15
    defaults = Settings(_env_file=None)  # type: ignore[call-arg]
    stop = defaults.drain_s + defaults.shutdown_grace_s + 1
    assert stop < float(COMPOSE["services"]["service"]["stop_grace_period"].removesuffix("s"))


def test_probes_ask_what_they_should() -> None:
    (container,) = PODS["service"]["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget"):
        selector = OBJECTS[kind, "ctr-serving"]["spec"]["selector"]
        assert selector.get("matchLabels", selector) == DEPLOYMENT["selector"]["matchLabels"] == labels


def test_one_retraining_at_a_time_and_nothing_published_is_not_tried_again() -> None:
    assert CRON["concurrencyPolicy"] == "Forbid"
    job = CRON["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy needs it"
    refused, bad_input, evicted = job["podFailurePolicy"]["rules"]
    assert (refused["action"], refused["onExitCodes"]["values"]) == ("FailJob", [NOTHING_PUBLISHED])
    assert (bad_input["action"], bad_input["onExitCodes"]["values"]) == ("FailJob", [2])
    assert (evicted["action"], evicted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert re.fullmatch(r"\*/30 \* \* \* \*", CRON["schedule"])
    assert job["activeDeadlineSeconds"] < 30 * 60


@pytest.mark.parametrize(
    "arguments",
    [
        *(container["args"] for pod in PODS.values() for container in pod["containers"]),
        COMPOSE["services"]["retraining"]["command"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_have_the_options_that_are_given(arguments: list[str]) -> None:
    helped = CliRunner().invoke(cli, [arguments[0], "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert helped.exit_code == 0
    for option in arguments[1:]:
        if option.startswith("--"):
            assert option.split("=")[0] in helped.output


def test_what_is_published_first_is_what_is_served() -> None:
    (train,), (service,) = PODS["train"]["containers"], PODS["service"]["containers"]
    assert "--name=$(CTR_MODEL)" in train["args"], "or else the version has the name of its architecture"
    assert train["envFrom"] == service["envFrom"], "which Kubernetes puts in place of $(CTR_MODEL)"
    assert "CTR_MODEL" in SETTINGS


def test_compose_fits_the_compose_specification() -> None:
    specification = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = msgspec.json.decode(specification.read_bytes())
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.validate(COMPOSE)
    assert not validator.is_valid(COMPOSE | {"services": {"service": {"imagee": "redis"}}})


def mounts_of(pod: str) -> dict[str, str]:
    (container,) = PODS[pod]["containers"]
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_runs_with_as_little_as_it_needs(name: str) -> None:
    service = COMPOSE["services"][name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("privileged", False) is False
    (temporary,) = service["tmpfs"]
    writable, _, options = temporary.partition(":")
    assert options.startswith("size="), "it is memory"
    assert writable == mounts_of("service")["tmp"], "the metrics of the workers need it"
    if "build" not in service:
        assert service["user"] not in ("root", "0")
        return
    assert service["environment"]["CTR_DATA_DIR"].startswith(f"{writable}/")
    mounts = [volume.split(":")[1:] for volume in service["volumes"]]
    serving = [["/srv/model_store", "ro"], [service["environment"].get("CTR_EVENTS")]]
    assert mounts == (serving if name == "service" else [["/srv/model_store"]])
    for word in re.findall(r"\S+/\S+", " ".join(service.get("command", ()))):
        assert word.startswith(f"{writable}/"), f"{word} cannot be written to"


def test_no_image_ends_as_root() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    users = {stage.split()[2]: re.findall(r"^USER (\S+)", stage, re.MULTILINE) for stage in stages}
    built = {service["build"]["target"] for service in COMPOSE["services"].values() if "build" in service}
    assert {target: users[target][-1:] for target in built} == {target: ["ctr"] for target in built}


def test_compose_retrains_beside_the_service() -> None:
    retraining = COMPOSE["services"]["retraining"]
    assert retraining["profiles"] == ["retraining"], "not where nobody asked for it"
    assert retraining["build"]["target"] == "training"
    assert "--every" in retraining["command"]
    assert (
        retraining["environment"]["CTR_MODEL_STORE"] == COMPOSE["services"]["service"]["environment"]["CTR_MODEL_STORE"]
    )


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_severity_and_a_summary(name: str) -> None:
    assert ALERTS[name]["labels"]["severity"] in ("page", "ticket")
    assert ALERTS[name]["annotations"]["summary"]


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_a_rule_asks_for_what_is_exported_or_recorded(name: str) -> None:
    expression = RECORDED[name] if name in RECORDED else ALERTS[name]["expr"]
    promql_parser.parse(expression)
    exported = {
        sample
        for family in Metrics()._registry.collect()
        for sample in (family.name, f"{family.name}_total", f"{family.name}_bucket", f"{family.name}_count")
    }
    asked = set(re.findall(r"\b(?:ctr|kube)[_:][a-z_:0-9]+", re.sub(r'"[^"]*"', "", expression)))
    assert asked
    for metric in asked:
        assert metric in exported | RECORDED.keys() or metric.startswith("kube_"), metric


def test_labels_in_alerts_are_ones_the_metrics_have() -> None:
    known = {
        "ctr_rank_requests_total": {"status", "version"},
        "ctr_features_missing_total": {"entity"},
        "ctr_model_swaps_total": {"outcome"},
        "ctr_degraded_total": {"reason"},
        "ctr_rejected_total": {"reason"},
        "ctr_connections_refused_total": {"reason"},
        "ctr_feedback_total": {"version", "label", "type"},
        "ctr_expected_clicks_total": {"version", "label"},
        "ctr_events_deliveries_total": {"outcome"},
    }
    source = (ROOT / "app" / "observability" / "metrics.py").read_text()
    for metric, labels in known.items():
        declared = re.search(rf'"{metric.removesuffix("_total")}",[^)]*', source)
        assert declared is not None
        assert all(f'"{label}"' in declared[0] for label in labels), metric
    for expression in (*RECORDED.values(), *(rule["expr"] for rule in ALERTS.values())):
        for metric, matchers in re.findall(r"(ctr_[a-z_]+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=", matchers)) <= known[metric], metric
