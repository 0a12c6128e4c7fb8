"""Clients that are generated from the OpenAPI document, and a real service.

Types are made by datamodel-code-generator, a whole client by openapi-python-client where that is installed: it wants an
older typer than this project, and so an environment of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from app.features.loading.embedded_valkey import EmbeddedValkey
from app.registry.store.model_store import ModelStore
from tests import loopback
from tests.e2e.conftest import Running, services
from tests.factories import MODEL_NAME, publish_tiny

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")
pytestmark = pytest.mark.slow

KEY = "a-key"
HEADERS = {"X-API-Key": KEY}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with keys, an admin and an event log: all routes are there."""
    folder = tmp_path_factory.mktemp("generated")
    store = ModelStore(folder / "model_store", MODEL_NAME)
    publish_tiny(store)
    with (
        EmbeddedValkey(folder / "valkey") as valkey,
        services(store, valkey.url, folder / "data") as start,
    ):
        yield start(EVENTS=str(folder / "events"), API_KEYS=KEY, ADMIN_KEY="admin")


@pytest.fixture(scope="module")
def document(recording: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(loopback.get(f"{recording.url}/openapi.json").content)
    return path


def run_generator(*command: str) -> None:
    """Run a generator, which must have nothing to say."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr


@pytest.fixture(scope="module")
def types(document: Path, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Return the module of pydantic models."""
    path = tmp_path_factory.mktemp("types") / "ctr_types.py"
    command = [sys.executable, "-m", "datamodel_code_generator", "--input", str(document), "--output", str(path)]
    options = ["--output-model-type", "pydantic_v2.BaseModel", "--formatters", "builtin"]
    run_generator(*command, "--input-file-type", "openapi", *options)
    specification = util.spec_from_file_location("ctr_types", path)
    assert specification is not None
    assert specification.loader is not None
    module = util.module_from_spec(specification)
    sys.modules["ctr_types"] = module  # pydantic looks there for what a name means
    specification.loader.exec_module(module)
    return module


def test_generated_types_hold_what_a_service_is_sent_and_answers(types: ModuleType, recording: Running) -> None:
    def send(path: str, body: Any) -> httpx.Response:
        headers = {**HEADERS, "Content-Type": "application/json"}
        return loopback.post(recording.url + path, content=body.model_dump_json(exclude_unset=True), headers=headers)

    request = types.RankRequest(
        user_id="4",
        item_ids=["1", 2, "nothing"],
        context={"hour": 21, "huor": [1, None, "a"]},
        item_features={"1": {"genres": ["a", "b"]}},
        explain=True,
        request_id="mine",
    )
    ranking = types.Ranking.model_validate_json(send("/rank", request).content)
    assert {item.item_id for item in ranking.items} == {"1", "2", "nothing"}
    assert (ranking.version, ranking.missing.items, ranking.ignored[0]) == (1, ["1", "2", "nothing"], "context.huor")
    assert ranking.impression_id
    assert ranking.items[0].explanation.parts[0].part is types.Part.bias
    record = types.FeedbackRecord(request_id=ranking.impression_id, item_id="1", type="click")
    result = types.FeedbackResult.model_validate_json(send("/feedback", record).content)
    assert (result.accepted, result.rejected, result.errors) == (1, 0, [])
    health = types.Health.model_validate_json(loopback.get(f"{recording.url}/health").content)
    assert (health.status, health.model.labels) == (types.Status.ok, {"stable": 1})
    models = types.Models.model_validate_json(loopback.get(f"{recording.url}/models", headers=HEADERS).content)
    assert [(one.version, one.live) for one in models.versions] == [(1, ["stable"])]
    problem = types.Problem.model_validate_json(loopback.get(f"{recording.url}/models").content)
    assert problem.status == 401
    misfit = types.Problem.model_validate_json(send("/rank", types.RankRequest(item_ids=["1"], model="odd")).content)
    assert misfit.errors[0].location == "model"


def test_answers_have_no_field_that_the_document_lacks(types: ModuleType, recording: Running) -> None:
    """pydantic leaves out what it does not know, so that what it keeps has to be all."""
    for path, name in (("/health", "Health"), ("/health/live", "Liveness"), ("/models", "Models")):
        answer = loopback.get(recording.url + path, headers=HEADERS)
        kept = getattr(types, name).model_validate_json(answer.content).model_dump(mode="json")
        assert kept == answer.json()
    body = {"item_ids": ["1", "2"], "request_id": "own", "context": {"huor": 1}, "explain": True}
    answer = loopback.post(f"{recording.url}/rank", json=body, headers=HEADERS)
    ranking = types.Ranking.model_validate_json(answer.content)
    assert json.loads(ranking.model_dump_json(exclude_unset=True)) == answer.json()


@pytest.fixture
def generated_client(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the name of the package of a whole client."""
    program = os.environ.get("OPENAPI_PYTHON_CLIENT") or shutil.which("openapi-python-client")
    if not program:
        pytest.skip("openapi-python-client is not installed: OPENAPI_PYTHON_CLIENT=PATH names one elsewhere")
    pytest.importorskip("attrs", reason="what it generates needs attrs")
    options = ["--path", str(document), "--output-path", str(tmp_path / "client"), "--meta", "none"]
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    run_generator(program, "generate", *options, "--config", str(tmp_path / "config.yaml"))
    (tmp_path / "client").rename(tmp_path / "generated_ctr_client")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "generated_ctr_client"
    for name in [name for name in sys.modules if name.startswith("generated_ctr_client")]:
        del sys.modules[name]


def test_a_generated_client_calls_a_service(generated_client: str, recording: Running) -> None:
    def module(name: str) -> Any:
        return import_module(f"{generated_client}.{name}")

    models = module("models")
    client = module("client").AuthenticatedClient(
        recording.url, KEY, prefix="", auth_header_name="X-API-Key", httpx_args={"trust_env": False}, timeout=60
    )
    with client:
        context = models.Features.from_dict({"hour": 21})
        request = models.RankRequest(["1", 2], user_id="4", context=context)
        ranking = module("api.rank.rank").sync(client=client, body=request)
        assert {item.item_id for item in ranking.items} == {"1", "2"}
        record = models.FeedbackRecord(ranking.request_id, "1", "click")
        assert module("api.feedback.feedback").sync(client=client, body=record).accepted == 1
        assert module("api.feedback.feedback").sync(client=client, body=[record, record]).accepted == 2
        assert module("api.health.health").sync(client=client).status == "ok"
        assert [one.version for one in module("api.models.models").sync(client=client, limit=1).versions] == [1]
        refused = module("api.rank.rank").sync(client=client, body=models.RankRequest([]))
        assert isinstance(refused, models.Problem)
        assert module("api.admin.refuse").sync(client=client, body=models.VersionBody(1)).status == 401
